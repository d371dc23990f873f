package bulk

import (
	"testing"
	"time"
)

func TestOnlyTheOwnersSegmentsCount(t *testing.T) {
	now := time.Now()
	g := newLedger()
	say := func(e entry) {
		e.ID, e.At = "batch_1", now
		g.apply(e, now)
	}
	piece := func(owner string, epoch, n, ended int) {
		say(entry{Type: entrySegment, Owner: owner, Epoch: epoch, Segment: &segment{N: n, Counts: Counts{Completed: ended}}})
	}
	say(entry{Type: entryCreated, Spec: &Spec{}})
	say(entry{Type: entryClaimed, Owner: "a", Epoch: 1})
	say(entry{Type: entryValidated, Owner: "a", Epoch: 1, Total: 10})
	piece("a", 1, 0, 3)
	say(entry{Type: entryClaimed, Owner: "b", Epoch: 2})
	piece("a", 1, 1, 4) // it slept, and does not know
	piece("b", 2, 1, 5)
	piece("b", 2, 1, 5) // whose acknowledgement was lost
	if got := g.batches["batch_1"].Counts.Completed; got != 8 {
		t.Errorf("%d lines count, want the 3 of the first owner and the 5 of the second", got)
	}
}
