package follow

import (
	"context"
	"time"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// Bounds of a read of history: entries of one stream, and pauses after errors.
const (
	readTotal  = 8192 // entries of all streams together, shared out
	readLeast  = 64
	retryFirst = 100 * time.Millisecond
	retryMost  = 2 * time.Second
)

// readable takes those whose history may be read now out of pending: all of
// them once every subscription stands, so that nothing can fall between history
// and live. On a stream that changes nobody waits for the subscription of the
// latest.
func (s *Stream) readable() []*watch {
	if len(s.pending) == 0 || time.Now().Before(s.retryAt) {
		return nil
	}
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if s.unready > 0 && !s.changes {
		return nil
	}
	var batch, rest []*watch
	if s.unready == 0 {
		batch = s.pending
	} else {
		for _, w := range s.pending {
			if w.feed.ready {
				batch = append(batch, w)
			} else {
				rest = append(rest, w)
			}
		}
	}
	s.pending = rest
	return batch
}

// read reads history for everybody who waits for it, in a few round trips. A
// failure is tried again; until then the tail may still bring terminals.
func (s *Stream) read(ctx context.Context, batch []*watch) {
	for _, w := range batch {
		w.waiting = false
	}
	if err := s.readBatch(ctx, batch); err != nil {
		for _, w := range batch {
			w.blind = true
			s.await(w)
			s.activate(w)
		}
		s.retryLater(min(retryFirst<<min(s.retries, 8), retryMost))
		s.f.p.Log.Debug("read events of watched tasks", "err", err)
		return
	}
	s.retries, s.retryAt = 0, time.Time{}
}

func (s *Stream) retryLater(wait time.Duration) {
	s.retries++
	s.retryAt = time.Now().Add(wait)
	time.AfterFunc(wait, func() { wake(s.wake) })
}

// readBatch reads states first, then events: a terminal that the state knows is
// then in the events too, unless it has been trimmed.
func (s *Stream) readBatch(ctx context.Context, batch []*watch) error {
	states, err := s.f.store.StatesAt(ctx, idsOf(batch))
	if err != nil {
		return err
	}
	s.f.vouch(batch, states)
	var readers, enders []*watch
	var of []terminal.State
	for i, w := range batch {
		switch {
		case w.begin(states[i].State):
			s.finishMute(w)
		case w.ends:
			enders = append(enders, w)
		default:
			readers, of = append(readers, w), append(of, states[i].State)
		}
	}
	ended, err := s.readEvents(ctx, readers, of)
	if err != nil {
		return err
	}
	if err := s.readTerminals(ctx, append(ended, enders...)); err != nil {
		return err
	}
	for _, w := range batch {
		w.joined, w.blind = !w.done, false
		s.activate(w)
	}
	s.note(batch)
	return nil
}

// vouch notes which tasks Redis shows open after all that the tail has not
// read: from here on the tail alone can tell how they end.
func (f *Follower) vouch(batch []*watch, states []taskstore.Placed) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, w := range batch {
		if w.feed == nil {
			continue
		}
		if breaks, ok := f.tail.vouch(w.id, states[i].State, f.store.Partition(w.id), states[i].At); ok {
			w.feed.vouched = breaks
		}
	}
}

// begin takes the watch to the start of the open generation. It reports true
// if the watcher has seen the end already.
func (w *watch) begin(st terminal.State) bool {
	if st.Generation > 0 {
		if before := event.TerminalID(st.Generation - 1); w.last.Less(before) {
			w.last = before
		}
	}
	return !st.Open() && !w.last.Less(event.TerminalID(st.Generation))
}

// readEvents fills the backlogs, and returns the watches whose task has ended
// although its stream does not show it.
func (s *Stream) readEvents(ctx context.Context, watches []*watch, states []terminal.State) ([]*watch, error) {
	limit := max(readLeast, readTotal/max(1, len(watches)))
	ranges := make([]eventlog.Range, len(watches))
	for i, w := range watches {
		ranges[i] = eventlog.Range{ID: w.id, After: w.last, Limit: limit}
	}
	histories, err := s.f.log.ReadMany(ctx, ranges)
	if err != nil {
		return nil, err
	}
	var ended []*watch
	for i, w := range watches {
		h := histories[i]
		w.fill(h)
		if !states[i].Open() && !h.More && newest(h).Less(event.TerminalID(states[i].Generation)) {
			ended = append(ended, w)
		}
	}
	return ended, nil
}

func newest(h eventlog.History) event.ID {
	if len(h.Entries) == 0 {
		return event.ID{}
	}
	return h.Entries[len(h.Entries)-1].ID
}

func (w *watch) fill(h eventlog.History) {
	if w.mended != (event.ID{}) && !h.Trimmed && len(h.Entries) > 0 {
		w.stream.f.metrics.repairs.WithLabelValues(repairFilled).Inc()
	}
	w.backlog, w.more = h.Entries, h.More
}

// readTerminals adds the terminals that the projection holds to the backlogs.
func (s *Stream) readTerminals(ctx context.Context, watches []*watch) error {
	if len(watches) == 0 {
		return nil
	}
	terminals, states, err := s.f.store.Terminals(ctx, idsOf(watches))
	if err != nil {
		return err
	}
	for i, w := range watches {
		if terminals[i] == nil {
			if !states[i].Open() {
				s.finishMute(w) // the result is past its time to live
			}
			continue
		}
		e, err := eventlog.EntryOf(event.OfTerminal(terminals[i], states[i].Generation))
		if err != nil {
			return err
		}
		w.backlog = append(w.backlog, e)
	}
	return nil
}

// note remembers how far each watch has come, for the heartbeat to compare.
func (s *Stream) note(batch []*watch) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	for _, w := range batch {
		reached := w.last
		if n := len(w.backlog); n > 0 {
			reached = w.backlog[n-1].ID
		}
		if w.seen.Less(reached) {
			w.seen = reached
		}
	}
}

func idsOf(watches []*watch) []task.ID {
	ids := make([]task.ID, len(watches))
	for i, w := range watches {
		ids[i] = w.id
	}
	return ids
}
