package event_test

import (
	"testing"

	"github.com/penstock/penstock/schema/event"
)

func TestATerminalSortsBetweenItsGenerationAndTheNext(t *testing.T) {
	for g := range event.MaxGeneration {
		last, err := event.NewFence(uint8(g), event.MaxHop, 1<<31-1, event.MaxTry)
		if err != nil {
			t.Fatal(err)
		}
		next, err := event.NewFence(uint8(g)+1, 0, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		end := event.TerminalFence(uint8(g))
		if last >= end || end >= next || end.Generation() != uint8(g) || !end.Terminal() || last.Terminal() {
			t.Fatalf("generation %d: last attempt %d, terminal %d, next generation %d", g, last, end, next)
		}
	}
}
