package attempt

import (
	"context"
	"slices"
	"time"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/schema/event"
)

// Bounds of what is done about a store that lost a stream.
const (
	// proofLimit is how long a proof of ownership may take, and how old it may
	// be when the stream is begun again. A broker gives a partition away only
	// after its member's session timeout of silence, which is longer: what was
	// true when the proof was asked for is still true.
	proofLimit = 5 * time.Second
	// proofPause is the time between two questions: a group between two
	// generations refuses every commit.
	proofPause = 250 * time.Millisecond
	maxLosses  = 8       // of one stream; a store that loses more often has no room for it
	replayMost = 4 << 20 // bytes of streams that are begun again in one write
)

// loss is what a stream goes through when the store has lost it: its worker may
// have slept, and another may own the task by now. Redis cannot tell any more,
// so Kafka must, before the stream is begun again.
type loss struct {
	stage lossStage
	asked time.Time // when the proof was asked for
	count int
}

type lossStage byte

const (
	whole    lossStage = iota // nothing is lost
	unproven                  // nothing is written until the broker has answered
	proven                    // ours: it is claimed again, and repeated
)

func (l loss) waits() bool { return l.stage == unproven }

// vanished stops the writing until the task is known to be ours; the caller
// holds the lock.
func (st *Stream) vanished() {
	if st.loss.count++; st.loss.count > maxLosses {
		st.end(endVanished)
		return
	}
	st.ask()
}

// ask has the ownership proven by Run; the caller holds the lock.
func (st *Stream) ask() {
	st.loss.stage = unproven
	st.s.lost = append(st.s.lost, st)
}

// outdated reports whether a proof is too old to write upon, and then asks
// anew; the caller holds the lock.
func (st *Stream) outdated(now time.Time) bool {
	if st.loss.stage != proven || now.Sub(st.loss.asked) < proofLimit {
		return false
	}
	st.ask()
	return true
}

// repaired notes that everything was written again; the caller holds the lock.
func (st *Stream) repaired() {
	if st.loss.stage != proven {
		return
	}
	st.loss.stage = whole
	outcome := lossReplayed
	if st.sent.dropped > 0 {
		outcome = lossGapped
	}
	st.s.m.losses.WithLabelValues(outcome).Inc()
}

// again is everything that makes the stream what it was: a gap for what is not
// remembered, the rest as it was sent.
func (st *Stream) again(now time.Time) (eventlog.Claim, []event.Event) {
	claim := st.claim
	claim.Insist = true // ownership is proven: no other worker's beat counts
	var events []event.Event
	if seq := st.sent.dropped; seq > 0 {
		events = append(events, event.Event{
			ID: event.ID{Fence: claim.Fence, Seq: seq}, Type: event.Gap, TaskID: claim.ID, At: now.UTC(),
			Reason: "the event store lost this part; the end has the full text",
		})
	}
	return claim, slices.Concat(events, st.sent.events, st.pending)
}

// prove asks until there is an answer, for as long as it is of use. Who is not
// the owner, or cannot know, writes no more tokens; the task goes on, for its
// terminal competes.
func (s *Streams) prove(ctx context.Context, st *Stream) {
	asked, ok := st.ownership(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case st.ended:
	case !ok:
		s.m.losses.WithLabelValues(lossUnproven).Inc()
		st.end(endUnproven)
	default:
		st.loss.stage, st.loss.asked = proven, asked
		s.nudge()
	}
}

// ownership reports when the question was asked that was answered by yes.
func (st *Stream) ownership(ctx context.Context) (asked time.Time, ok bool) {
	if st.owned == nil {
		return asked, false
	}
	ctx, cancel := context.WithTimeout(ctx, proofLimit)
	defer cancel()
	for ctx.Err() == nil {
		asked = time.Now()
		if st.owned(ctx) == nil {
			return asked, true
		}
		select {
		case <-ctx.Done():
		case <-time.After(proofPause):
		}
	}
	return asked, false
}

// window is the latest of what was written, bufferBytes of text at most.
type window struct {
	events  []event.Event
	bytes   int
	dropped uint64 // sequence of the newest event that is not remembered; 0: all are
}

// keep remembers an event, and forgets the oldest beyond the bound.
func (w *window) keep(e event.Event) {
	w.events, w.bytes = append(w.events, e), w.bytes+size(e)
	n := 0
	for ; w.bytes > bufferBytes; n++ {
		w.bytes -= size(w.events[n])
		w.dropped = w.events[n].ID.Seq
	}
	clear(w.events[:n]) // let the texts go even if the array stays
	w.events = w.events[n:]
}
