package attempt

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/worker/backend"
)

// Bounds of token streams.
const (
	flushBytes  = 1 << 10   // a piece this large goes out at once
	bufferBytes = 256 << 10 // unwritten text of one stream; beyond it the stream ends
	writeLimit  = 5 * time.Second
	retryPause  = 200 * time.Millisecond // after a write that failed for reasons of the store
)

// Streams writes the tokens of all running tries: one goroutine gathers what is
// due of every stream into one pipelined write. Emitting never waits for it.
type Streams struct {
	log   Log
	every time.Duration
	m     *metrics
	wake  chan struct{} // holds one wish

	mu   sync.Mutex
	open map[*Stream]struct{}
}

// NewStreams returns a writer that lets a stream wait at most every between two
// writes; the first piece goes out at once.
func NewStreams(log Log, every time.Duration, m *metrics) *Streams {
	return &Streams{log: log, every: every, m: m, wake: make(chan struct{}, 1), open: map[*Stream]struct{}{}}
}

// Stream is the token stream of one try. Its owner calls Emit in order and then
// Close.
type Stream struct {
	s     *Streams
	claim eventlog.Claim
	over  chan struct{} // closed when nothing more will be written

	// Guarded by s.mu.
	seq     uint64
	texts   []piece       // coalesced, not yet in an event
	pending []event.Event // on the way, or to be sent again
	sent    []event.Event // everything the store took, while it fits bufferBytes
	partial bool          // sent is not everything any more
	reclaim bool          // the store lost the stream: begin again
	bytes   int           // of texts and pending
	kept    int           // bytes of sent
	last    time.Time
	closing bool
	ended   bool // refused, vanished or overflowed: everything further is dropped
}

type piece struct {
	index int
	text  []byte
}

// Open starts the stream of a try whose claim was written.
func (s *Streams) Open(claim eventlog.Claim) *Stream {
	st := &Stream{s: s, claim: claim, over: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[st] = struct{}{}
	return st
}

// Emit takes a piece of the answer. It never blocks.
func (st *Stream) Emit(p backend.Piece) {
	s := st.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.ended || p.Text == "" {
		return
	}
	if st.bytes += len(p.Text); st.bytes > bufferBytes {
		st.end("overflow")
		return
	}
	if n := len(st.texts); n == 0 || st.texts[n-1].index != p.Index {
		st.texts = append(st.texts, piece{index: p.Index})
	}
	last := &st.texts[len(st.texts)-1]
	last.text = append(last.text, p.Text...)
	if st.last.IsZero() || st.bytes >= flushBytes || time.Since(st.last) >= s.every {
		s.nudge()
	}
}

// Close lets the rest go out, without waiting for it.
func (st *Stream) Close() {
	s := st.s
	s.mu.Lock()
	defer s.mu.Unlock()
	st.closing = true
	switch {
	case st.ended:
	case len(st.texts) == 0 && len(st.pending) == 0:
		st.ended = true
		st.leave()
	default:
		s.nudge()
	}
}

// Written is closed once everything of a closed stream is in the store, or
// nothing more will be. A terminal that comes before that would cut the
// stream's tail off: the store refuses tokens after the end.
func (st *Stream) Written() <-chan struct{} { return st.over }

// leave ends the writing; the caller holds the lock, and does it once.
func (st *Stream) leave() {
	delete(st.s.open, st)
	close(st.over)
}

// end drops the stream; the caller holds the lock.
func (st *Stream) end(reason string) {
	st.ended, st.texts, st.pending, st.sent, st.bytes = true, nil, nil, nil, 0
	st.leave()
	st.s.m.streamsEnded.WithLabelValues(reason).Inc()
}

func (s *Streams) nudge() {
	select {
	case s.wake <- struct{}{}:
	default: // it will look at everything anyway
	}
}

// Run writes until ctx is done.
func (s *Streams) Run(ctx context.Context) {
	tick := time.NewTicker(max(s.every, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-tick.C:
		}
		if !s.flush(ctx) {
			select {
			case <-ctx.Done():
			case <-time.After(retryPause):
			}
		}
	}
}

// flush writes everything that is due and reports false if the store could not.
func (s *Streams) flush(ctx context.Context) bool {
	due, batch, claims := s.gather()
	if len(batch) == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	if len(claims) > 0 { // their appends tell how it went
		s.log.ClaimAll(ctx, claims)
	}
	errs := s.log.Append(ctx, batch)
	s.mu.Lock()
	defer s.mu.Unlock()
	ok := true
	for i, st := range due {
		ok = st.answered(errs[i]) && ok
	}
	return ok
}

func (s *Streams) gather() (due []*Stream, batch []eventlog.Append, claims []eventlog.Claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for st := range s.open {
		if !st.due(now, s.every) {
			continue
		}
		st.cut(now)
		events := st.pending
		if st.reclaim {
			claims = append(claims, st.claim)
			events = append(slices.Clone(st.sent), events...)
		}
		due = append(due, st)
		batch = append(batch, eventlog.Append{ID: st.claim.ID, Events: events})
	}
	return due, batch, claims
}

func (st *Stream) due(now time.Time, every time.Duration) bool {
	if len(st.pending) > 0 {
		return true // repeat what the store did not take
	}
	return len(st.texts) > 0 && (st.closing || st.last.IsZero() || st.bytes >= flushBytes || now.Sub(st.last) >= every)
}

// cut makes events of what has gathered, unless older ones wait for a repeat:
// those go alone, so that a repeat is the same.
func (st *Stream) cut(now time.Time) {
	if len(st.pending) > 0 {
		return
	}
	for i := range st.texts {
		st.seq++
		st.pending = append(st.pending, event.Event{
			ID: event.ID{Fence: st.claim.Fence, Seq: st.seq}, Type: event.Delta, TaskID: st.claim.ID, At: now.UTC(),
			Text: string(st.texts[i].text), Index: st.texts[i].index,
		})
	}
	st.texts, st.last = nil, now
}

// answered takes the store's word on what was sent; it reports false when it
// must be sent again. The caller holds the lock.
func (st *Stream) answered(err error) bool {
	switch {
	case st.ended:
		return true
	case errors.Is(err, eventlog.ErrFenced):
		st.end("fenced")
		return true
	case errors.Is(err, eventlog.ErrVanished):
		return st.vanished()
	case err != nil:
		return false
	}
	for _, e := range st.pending {
		st.bytes -= len(e.Text)
		st.keep(e)
	}
	st.pending, st.reclaim = nil, false
	if st.closing && len(st.texts) == 0 {
		st.ended = true
		st.leave()
	}
	return true
}

// keep remembers what was written, for the case that the store loses it.
func (st *Stream) keep(e event.Event) {
	if st.kept += len(e.Text); st.partial || st.kept > bufferBytes {
		st.partial, st.sent = true, nil
		return
	}
	st.sent = append(st.sent, e)
}

// vanished begins the stream again from its claim, once, if everything written
// so far is remembered. Otherwise tokens end here: a stream with a hole would
// be worse.
func (st *Stream) vanished() bool {
	if st.partial || st.reclaim {
		st.end("vanished")
		return true
	}
	st.reclaim = true
	return false
}
