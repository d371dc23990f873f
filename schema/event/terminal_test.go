package event_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
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

func TestTheEventOfATerminalIsTheLastOfItsGeneration(t *testing.T) {
	for _, s := range task.Statuses() {
		if event.Type(s).Terminal() != s.Terminal() {
			t.Errorf("event %s and status %s disagree whether they end a task", event.Type(s), s)
		}
	}
	end := &terminal.Terminal{TaskID: "task_1", Status: task.Dead, EndedAt: time.Unix(9, 0)}
	got := event.OfTerminal(end, 2)
	want := event.Event{ID: event.TerminalID(2), Type: event.Dead, TaskID: "task_1", At: end.EndedAt, Result: end}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
}
