package attempt

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/worker/backend"
)

// Stream is the token stream of one try. Its owner calls Emit in order and then
// Close.
type Stream struct {
	s     *Streams
	claim eventlog.Claim
	owned func(context.Context) error // Try.Owned
	over  chan struct{}               // closed when nothing more will be written

	// Guarded by s.mu.
	seq     uint64
	texts   []piece       // coalesced, not yet in an event
	pending []event.Event // on the way, or to be sent again
	sent    window        // what the store took
	loss    loss
	bytes   int // of texts and pending
	last    time.Time
	closing bool
	ended   bool // refused, lost or overflowed: everything further is dropped
}

type piece struct {
	index  int
	text   []byte
	choice json.RawMessage // what is no text is an event of its own
}

// size is how many bytes of an answer an event has.
func size(e event.Event) int { return len(e.Text) + len(e.Choice) }

// Emit takes a piece of the answer. It never blocks.
func (st *Stream) Emit(p backend.Piece) {
	s := st.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.ended || p.Text == "" && p.Choice == nil {
		return
	}
	if st.bytes += len(p.Text) + len(p.Choice); st.bytes > bufferBytes {
		st.end(endOverflow)
		return
	}
	st.gather(p)
	if st.last.IsZero() || st.bytes >= flushBytes || time.Since(st.last) >= s.every {
		s.nudge()
	}
}

// gather joins a piece to the one before it, if both are nothing but text of
// one choice.
func (st *Stream) gather(p backend.Piece) {
	if n := len(st.texts); n == 0 || st.texts[n-1].index != p.Index || p.Choice != nil || st.texts[n-1].choice != nil {
		st.texts = append(st.texts, piece{index: p.Index, choice: p.Choice})
	}
	last := &st.texts[len(st.texts)-1]
	last.text = append(last.text, p.Text...)
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
	st.ended, st.texts, st.pending, st.sent, st.bytes = true, nil, nil, window{}, 0
	st.leave()
	st.s.m.streamsEnded.WithLabelValues(reason).Inc()
}

// due reports whether something is to be written now. What would be due in a
// moment goes along, so that many streams share a round trip.
func (st *Stream) due(now time.Time, every time.Duration) bool {
	switch {
	case st.loss.waits():
		return false
	case len(st.pending) > 0:
		return true // repeat what the store did not take
	default:
		return len(st.texts) > 0 && (st.closing || st.last.IsZero() || st.bytes >= flushBytes || now.Sub(st.last) >= every-every/8)
	}
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
			Text: string(st.texts[i].text), Index: st.texts[i].index, Choice: st.texts[i].choice,
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
	case refused(err):
		st.end(endFenced)
		return true
	case errors.Is(err, eventlog.ErrVanished):
		st.vanished()
		return true
	case err != nil:
		return false
	}
	for _, e := range st.pending {
		st.bytes -= size(e)
		st.sent.keep(e)
	}
	st.pending = nil
	st.repaired()
	if st.closing && len(st.texts) == 0 {
		st.ended = true
		st.leave()
	}
	return true
}

// refused reports whether the store says that the stream is another's.
func refused(err error) bool {
	return errors.Is(err, eventlog.ErrFenced) || errors.Is(err, eventlog.ErrHeld) || errors.Is(err, eventlog.ErrBarred)
}
