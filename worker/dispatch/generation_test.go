package dispatch_test

import (
	"context"
	"testing"
	"time"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend"
)

func TestALaterGenerationEndsTheFormerAndNeverRunsBesideIt(t *testing.T) {
	running, most, runs := 0, 0, 0
	inWorld(t, nil, func(w *world) {
		w.backend.Do = func(ctx context.Context, items []backend.Item) []backend.Outcome {
			w.mu.Lock()
			running++
			runs++
			most = max(most, running)
			w.mu.Unlock()
			select {
			case <-time.After(10 * time.Second):
			case <-items[0].Context(ctx).Done():
				time.Sleep(time.Second) // an engine takes a moment to stop
			}
			w.mu.Lock()
			running--
			w.mu.Unlock()
			if err := context.Cause(items[0].Context(ctx)); err != nil {
				return backend.Fail(len(items), err)
			}
			return succeed(ctx, items)
		}
		tk, first := w.submit(nil)
		w.sleep(time.Second)
		second := w.deliver(tk, task.Progress{Generation: 1, Hop: 1})
		late := w.deliver(tk, task.Progress{}) // a duplicate of the first
		w.sleep(time.Minute)
		if most != 1 || runs != 2 || !w.settled[first] || !w.settled[second] || !w.settled[late] {
			t.Errorf("%d runs, %d side by side, settled %v", runs, most, w.settled)
		}
		ends := w.ends[tk.ID]
		if len(ends) != 1 || *ends[0].Generation != 1 || ends[0].Status != task.Succeeded {
			t.Errorf("%d terminals: %+v", len(ends), ends)
		}
	})
}

func TestAFormerGenerationThatWaitsIsSettledWithoutARun(t *testing.T) {
	inWorld(t, succeed, func(w *world) {
		tk, first := w.submit(func(tk *task.Task, _ *task.Progress) { tk.OrderingKey = "k" })
		w.sleep(time.Second)
		w.deliver(tk, task.Progress{Generation: 1, Hop: 1})
		w.sleep(time.Second)
		if !w.settled[first] || len(w.ends) != 0 {
			t.Fatalf("settled %v, ends %v", w.settled, w.ends)
		}
		w.room()
		w.sleep(time.Second)
		if ends := w.ends[tk.ID]; len(ends) != 1 || *ends[0].Generation != 1 {
			t.Errorf("terminals %+v", ends)
		}
	}, func(w *world) { w.slots = 0 })
}
