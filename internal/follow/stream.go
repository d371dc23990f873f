package follow

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// Watch asks for the events of one task after an id; with the zero id the first
// is `queued`.
type Watch struct {
	ID    task.ID
	After event.ID
}

// Item is one event of a watched task, as it is stored.
type Item struct {
	Task task.ID
	eventlog.Entry
}

// Stream is one watcher of one or more tasks. It holds a position in each
// task's ring and no queue of its own. One goroutine uses it at a time.
type Stream struct {
	f       *Follower
	all     []*watch // whose task has not ended
	changes bool     // watches come and go: see Open

	active  []*watch // have something to hand over
	pending []*watch // must read history before anything else
	open    int      // watches without their terminal
	retryAt time.Time
	retries int
	over    []task.ID // whose watch ended with nothing to show, where that is told

	nudged atomic.Bool
	wake   chan struct{} // 1 slot: look at nudged and the fields below

	// Guarded by the follower's lock.
	dirty   []*watch // rings with news
	rereads []*watch // whose live events may have been lost
	unready int      // watches whose subscription does not stand
}

// watch is one task of a stream. Fields are the stream's own unless noted.
type watch struct {
	id     task.ID
	stream *Stream

	ends    bool // only the terminal is wanted
	last    event.ID
	shown   event.Fence // of the last event that belongs to an attempt; 0: none
	backlog []eventlog.Entry
	inbox   []item
	joined  bool
	blind   bool     // history could not be read: an end needs none before it
	waiting bool     // is in stream.pending
	queued  bool     // is in stream.active
	more    bool     // history has more than the backlog
	mended  event.ID // the event before which a hole was read for already
	falls   int      // times in a row that the ring was too short
	done    bool

	// Guarded by the follower's lock.
	feed    *feed
	pos     uint64 // next position in the feed's ring
	seen    event.ID
	soiled  bool // is in stream.dirty
	flagged bool // is in stream.rereads
}

// maxFalls is how often in a row a watcher may need the stream instead of the
// ring before it is cut.
const maxFalls = 8

func (w *watch) soil() {
	if !w.soiled {
		w.soiled = true
		w.stream.dirty = append(w.stream.dirty, w)
	}
	wake(w.stream.wake)
}

func (w *watch) reread() {
	if !w.flagged {
		w.flagged = true
		w.stream.rereads = append(w.stream.rereads, w)
	}
	wake(w.stream.wake)
}

// FollowMany watches several tasks as one. The stream must be closed.
func (f *Follower) FollowMany(_ context.Context, watches []Watch) (*Stream, error) {
	s := &Stream{f: f, wake: make(chan struct{}, 1)}
	seen := make(map[task.ID]struct{}, len(watches))
	all := make([]*watch, 0, len(watches))
	for _, want := range watches {
		if _, twice := seen[want.ID]; twice {
			continue
		}
		seen[want.ID] = struct{}{}
		all = append(all, s.newWatch(want))
	}
	s.start(all)
	return s, nil
}

func (s *Stream) newWatch(want Watch) *watch {
	w := &watch{id: want.ID, stream: s, last: want.After, shown: want.After.Fence, seen: want.After}
	if want.After.IsZero() {
		w.backlog = []eventlog.Entry{queued(want.ID)}
		s.activate(w)
	}
	return w
}

// queued is the event that is never stored.
func queued(id task.ID) eventlog.Entry {
	return eventlog.Entry{ID: event.QueuedID(), Data: []byte(`{"type":"queued","task_id":"` + string(id) + `"}`)}
}

func (s *Stream) start(all []*watch) {
	s.all = all
	s.begin(all...)
}

func (s *Stream) begin(watches ...*watch) {
	s.open += len(watches)
	for _, w := range watches {
		s.await(w)
	}
	s.f.metrics.watchers.Add(float64(len(watches)))
	s.f.register(watches)
}

// await puts a watch among those that must read history.
func (s *Stream) await(w *watch) {
	if !w.waiting && !w.done {
		w.waiting = true
		s.pending = append(s.pending, w)
	}
}

func (s *Stream) activate(w *watch) {
	if !w.queued && !w.done {
		w.queued = true
		s.active = append(s.active, w)
	}
}

// Next waits for the next event of any of the tasks. It returns io.EOF once
// every task has ended (a stream of Open never does), and ErrSlow when the
// stream is cut: whoever resumes after the last event misses nothing.
func (s *Stream) Next(ctx context.Context) (Item, error) { return s.Poll(ctx, nil) }

// Poll is Next that also returns ErrIdle when until delivers first, or Nudge was
// called.
func (s *Stream) Poll(ctx context.Context, until <-chan time.Time) (Item, error) {
	for {
		if s.nudged.CompareAndSwap(true, false) {
			return Item{}, ErrIdle
		}
		if it, ok, err := s.Take(ctx); ok || err != nil {
			return it, err
		}
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-until:
			return Item{}, ErrIdle
		}
	}
}

// Take is Next that does not wait for what is yet to happen: ok is false if
// there is no event now. It may read from Redis.
func (s *Stream) Take(ctx context.Context) (it Item, ok bool, err error) {
	for {
		if it, ok, err = s.take(); ok || err != nil {
			return it, ok, err
		}
		if s.open == 0 && !s.changes {
			return it, false, io.EOF
		}
		if ctx.Err() != nil {
			return it, false, fmt.Errorf("follow: %w", context.Cause(ctx))
		}
		if s.gather(); len(s.active) > 0 {
			continue
		}
		batch := s.readable()
		if len(batch) == 0 {
			return it, false, nil
		}
		s.read(ctx, batch)
	}
}

// Wait waits until Take may have something, Nudge was called, or ctx is done.
// Whoever waits here instead of in Poll has the less on its stack.
func (s *Stream) Wait(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-s.wake:
	}
}

// gather takes over what the rings have for this stream.
func (s *Stream) gather() {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	for _, w := range s.rereads {
		w.flagged = false
		w.joined = false
		s.await(w)
	}
	s.rereads = s.rereads[:0]
	for _, w := range s.dirty {
		w.soiled = false
		if w.feed == nil {
			continue
		}
		w.collect()
		s.activate(w)
	}
	s.dirty = s.dirty[:0]
}

// collect moves a watch to the end of its ring. If the ring has lost what comes
// next, the stream must be read.
func (w *watch) collect() {
	d := w.feed
	if w.pos < d.base {
		w.pos = d.base
		w.joined = false
		w.falls++
		w.stream.await(w)
	} else {
		w.falls = 0
	}
	w.inbox = append(w.inbox, d.ring[w.pos-d.base:]...)
	w.pos = d.end()
	if w.seen.Less(d.top()) {
		w.seen = d.top()
	}
}

// take hands over the next event of an active watch.
func (s *Stream) take() (Item, bool, error) {
	if n := len(s.over); n > 0 {
		id := s.over[n-1]
		s.over = s.over[:n-1]
		return Item{Task: id}, true, nil
	}
	for len(s.active) > 0 {
		w := s.active[0]
		if w.falls > maxFalls && !w.done {
			return Item{}, false, ErrSlow
		}
		if e, ok := w.next(); ok {
			if w.done {
				s.finish(w)
			}
			return Item{w.id, e}, true, nil
		}
		w.queued = false
		s.active = s.active[1:]
	}
	s.active = nil
	return Item{}, false, nil
}

func (s *Stream) finish(w *watch) {
	s.open--
	w.done, w.backlog, w.inbox = true, nil, nil
	is := func(other *watch) bool { return other == w }
	s.all = slices.DeleteFunc(s.all, is)
	if w.waiting {
		s.pending = slices.DeleteFunc(s.pending, is)
	}
	s.f.metrics.watchers.Dec()
	s.f.release([]*watch{w})
}

// finishMute ends a watch whose watcher gets no event that says so.
func (s *Stream) finishMute(w *watch) {
	s.finish(w)
	if s.changes {
		s.over = append(s.over, w.id)
	}
}

// next is the next event of one watch: what history has, then what is live,
// each behind what must be told before it.
func (w *watch) next() (eventlog.Entry, bool) {
	for !w.done {
		e, ok := w.draw()
		if !ok {
			return e, false
		}
		if told, ok := w.before(e); ok {
			w.backlog = slices.Insert(w.backlog, 0, e)
			e = told
		}
		if e, ok := w.show(e); ok {
			return e, true
		}
	}
	return eventlog.Entry{}, false
}

// draw takes the next event from the backlog or, once history is read, from
// the inbox. Before a hole in the inbox it takes nothing and has the stream
// read first.
func (w *watch) draw() (eventlog.Entry, bool) {
	if len(w.backlog) > 0 {
		e := w.backlog[0]
		if w.backlog = w.backlog[1:]; len(w.backlog) == 0 {
			w.backlog = nil // who waits holds nothing of what it has shown
		}
		return e, true
	}
	if w.more {
		w.more, w.joined = false, false
		w.stream.await(w)
	}
	if len(w.inbox) == 0 || (!w.joined && !w.direct()) {
		return eventlog.Entry{}, false
	}
	it := w.inbox[0]
	if w.holed(it) && w.mended != it.ID {
		w.mended, w.joined = it.ID, false
		w.stream.await(w)
		return eventlog.Entry{}, false
	}
	if w.inbox = w.inbox[1:]; len(w.inbox) == 0 {
		w.inbox = nil
	}
	return it.Entry, true
}

// direct drops what cannot be shown before history is read, if the inbox holds
// a terminal that needs none.
func (w *watch) direct() bool {
	for i := range w.inbox {
		if w.inbox[i].direct || w.blind && w.inbox[i].ID.Fence.Terminal() {
			w.inbox = w.inbox[i:]
			return true
		}
	}
	return false
}

// holed reports whether events that nobody told of lie between the last one
// shown and this one.
func (w *watch) holed(it item) bool {
	return !w.ends && w.last.Less(it.ID) && !it.Follows(w.last)
}

// show decides whether an event is handed over, and in which form: nothing
// twice, nothing after the end, and no attempt after another without restart.
func (w *watch) show(e eventlog.Entry) (eventlog.Entry, bool) {
	if w.done || !w.last.Less(e.ID) {
		return e, false
	}
	w.last = e.ID
	if e.ID.Fence.Terminal() {
		w.done = true
		return e, true
	}
	if w.ends {
		return e, false
	}
	if e.ID.Fence != 0 {
		if w.shown != 0 && w.shown != e.ID.Fence && e.Type() == event.Started {
			e = restarted(e)
		}
		w.shown = e.ID.Fence
	}
	return e, true
}

// Close ends the stream. It may be called more than once.
func (s *Stream) Close() {
	rest := s.all
	s.all, s.open = nil, 0
	s.f.metrics.watchers.Sub(float64(len(rest)))
	s.f.release(rest)
}
