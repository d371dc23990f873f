package dispatch_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/attempt"
	"github.com/penstock/penstock/worker/backend"
)

// sick is an engine that fails all tasks, or those that say so.
type sick struct{ all atomic.Bool }

func (s *sick) run(ctx context.Context, items []backend.Item) []backend.Outcome {
	out := succeed(ctx, items)
	for i, it := range items {
		if s.all.Load() || strings.HasPrefix(it.Task.Payload.Text, "poison") {
			out[i] = backend.Fail(1, fault.New(fault.Internal, "broken"))[0]
		}
	}
	return out
}

// lastTry makes a task's next failure its death.
func lastTry(_ *task.Task, p *task.Progress) { p.Attempts = attempt.MaxAttempts - 1 }

func poison(tk *task.Task, p *task.Progress) {
	tk.Payload.Text = "poison"
	lastTry(tk, p)
}

func TestAFaultThatKillsEverythingPausesThePoolInsteadOfFillingTheDeadLetters(t *testing.T) {
	s := &sick{}
	s.all.Store(true)
	inWorld(t, s.run, func(w *world) {
		for range 200 {
			w.submit(lastTry)
			w.sleep(10 * time.Millisecond)
		}
		w.sleep(30 * time.Minute)
		buried := len(w.letters)
		if f := w.loop.Flood(); f.Code != fault.Internal || f.Waiting == 0 || buried != 20 || len(w.ends) != 20 {
			t.Fatalf("%+v with %d dead letters and %d ends", f, buried, len(w.ends))
		}
		s.all.Store(false)
		w.sleep(30 * time.Second) // of one probe's interval
		if f := w.loop.Flood(); f.Code != "" || len(w.ends) != 200 || len(w.letters) != buried {
			t.Fatalf("%+v; %d of 200 ended, %d dead letters", f, len(w.ends), len(w.letters))
		}
		for _, ends := range w.ends {
			if end := ends[0]; end.Status == task.Succeeded && end.Attempts[len(end.Attempts)-1].N > attempt.MaxAttempts {
				t.Fatalf("the pause cost attempts: %+v", end.Attempts)
			}
		}
	})
}

func TestAPausedPoolRunsOneProbePerInterval(t *testing.T) {
	s := &sick{}
	s.all.Store(true)
	var runs atomic.Int64
	inWorld(t, func(ctx context.Context, items []backend.Item) []backend.Outcome {
		runs.Add(int64(len(items)))
		return s.run(ctx, items)
	}, func(w *world) {
		for range 200 {
			w.submit(lastTry)
			w.sleep(10 * time.Millisecond)
		}
		w.sleep(5 * time.Minute)
		before := runs.Load()
		w.sleep(10 * time.Minute)
		if n := runs.Load() - before; n < 55 || n > 61 {
			t.Errorf("%d runs in 10 minutes of pause", n)
		}
	})
}

func TestAFewBadTasksAreBuriedAsTheyShouldBe(t *testing.T) {
	s := &sick{}
	t.Run("one of twenty in a quiet pool", func(t *testing.T) {
		inWorld(t, s.run, func(w *world) {
			for i := range 20 {
				if i == 7 {
					w.submit(poison)
					continue
				}
				w.submit(nil)
			}
			w.sleep(time.Minute)
			if len(w.letters) != 1 || w.loop.Flood().Code != "" {
				t.Errorf("%d dead letters, %+v", len(w.letters), w.loop.Flood())
			}
		})
	})
	t.Run("one in a hundred of a busy one", func(t *testing.T) {
		inWorld(t, s.run, func(w *world) {
			for i := range 6000 {
				if i%100 == 50 {
					w.submit(poison)
				} else {
					w.submit(nil)
				}
				w.sleep(5 * time.Millisecond)
			}
			w.sleep(time.Minute)
			if len(w.letters) != 60 || w.loop.Flood().Code != "" {
				t.Errorf("%d dead letters, %+v", len(w.letters), w.loop.Flood())
			}
		})
	})
}

func TestWhatWaitsForTheEndOfAFloodIsNotLost(t *testing.T) {
	s := &sick{}
	s.all.Store(true)
	t.Run("at its deadline it expires", func(t *testing.T) {
		inWorld(t, s.run, func(w *world) {
			for range 30 {
				w.submit(lastTry)
				w.sleep(10 * time.Millisecond)
			}
			w.sleep(2 * time.Hour)
			expired := 0
			for _, ends := range w.ends {
				if ends[0].Status == task.Expired {
					expired++
				}
			}
			if expired != 10 || len(w.letters) != 20 {
				t.Errorf("%d expired, %d dead letters", expired, len(w.letters))
			}
		})
	})
	t.Run("a drain hands it on with its last try", func(t *testing.T) {
		inWorld(t, s.run, func(w *world) {
			for range 30 {
				w.submit(lastTry)
				w.sleep(10 * time.Millisecond)
			}
			w.sleep(2 * time.Minute)
			w.stop()
			if got := len(w.again) + len(w.released); got != 10 {
				t.Fatalf("%d handed on", got)
			}
			for _, a := range w.again {
				if a.p.Attempts != attempt.MaxAttempts-1 {
					t.Errorf("handed on with %d attempts", a.p.Attempts)
				}
			}
		})
	})
}
