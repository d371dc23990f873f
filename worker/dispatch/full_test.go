package dispatch_test

import (
	"context"
	"testing"
	"time"

	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend"
)

// A fence's fields are narrow. Each has a way on before it is full.

func TestATaskThatUsedUpItsLocalTriesIsPublishedAgain(t *testing.T) {
	away := fault.New(fault.Unavailable, "connection refused")
	away.Class = fault.ClassSystem
	tries := 0
	inWorld(t, func(_ context.Context, items []backend.Item) []backend.Outcome {
		tries++
		return backend.Fail(len(items), away)
	}, func(w *world) {
		w.submit(func(tk *task.Task, _ *task.Progress) { tk.Deadline = time.Now().Add(24 * time.Hour) })
		w.sleep(2 * time.Hour)
		w.expect("republish penstock.tasks.default.standard", "settled")
		if p := w.again[0].p; tries != event.MaxTry+1 || p.Hop != 1 || p.Attempts != 0 {
			t.Errorf("after %d tries: %+v", tries, p)
		}
	})
}

func TestHopsThatRunOutAreSpentSlowlyAndEndInADeadLetter(t *testing.T) {
	for name, c := range map[string]struct {
		hop  uint16
		want []string
	}{
		"plenty left": {3998, []string{"republish penstock.tasks.default.standard", "settled"}},
		"few left":    {3999, []string{"republish penstock.retry.10m", "settled"}},
		"none left":   {event.MaxHop - 1, []string{"letter exhausted", "terminal dead", "settled"}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, failing(fault.New(fault.Timeout, "slow")), func(w *world) {
				w.submit(func(_ *task.Task, p *task.Progress) { p.Hop = c.hop })
				w.sleep(100 * time.Millisecond) // it waits for its second attempt
				w.stop()
				w.expect(c.want...)
			})
		})
	}
}
