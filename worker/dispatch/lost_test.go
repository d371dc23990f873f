package dispatch_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/worker/backend"
)

// lostOnce is what a claim finds after a worker died.
func lostOnce() *eventlog.Lost {
	now := time.Now()
	return &eventlog.Lost{Fence: 1792, Worker: "dead", Claimed: now.Add(-time.Minute), Beat: now.Add(-time.Second)}
}

func barred(losses int) eventlog.Grant {
	return eventlog.Grant{Losses: losses, Lost: lostOnce(), Err: eventlog.ErrBarred}
}

// granted submits a task whose first claim is answered by g.
func (w *world) granted(g eventlog.Grant, change func(tk *task.Task, p *task.Progress)) *task.Task {
	tk, _ := w.submit(func(tk *task.Task, p *task.Progress) {
		w.redis.Grant(tk.ID, g)
		if change != nil {
			change(tk, p)
		}
	})
	return tk
}

func TestOneLossCostsNothingAndIsTold(t *testing.T) {
	inWorld(t, succeed, func(w *world) {
		tk := w.granted(eventlog.Grant{Losses: 1, Lost: lostOnce()}, nil)
		w.sleep(time.Second)
		w.expect("terminal succeeded", "settled")
		attempts := w.ends[tk.ID][0].Attempts
		if len(attempts) != 2 || attempts[0].Code != string(fault.Lost) || attempts[0].Worker != "dead" || attempts[0].Fence != "1792" || attempts[1].N != 1 {
			t.Errorf("attempts %+v", attempts)
		}
	})
}

func TestASecondLossIsPublishedBeforeTheTaskRuns(t *testing.T) {
	ran := false
	inWorld(t, func(ctx context.Context, items []backend.Item) []backend.Outcome {
		ran = true
		return succeed(ctx, items)
	}, func(w *world) {
		w.granted(barred(2), nil)
		w.sleep(time.Second)
		w.expect("republish "+topic.Tasks("default", task.Standard), "settled")
		if p := w.again[0].p; ran || p.Losses != 2 || p.Hop != 1 || p.Attempts != 0 || len(p.History) != 1 || !p.NotBefore.IsZero() {
			t.Errorf("ran %t, progress %+v", ran, p)
		}
	})
}

func TestAnOrderedTaskKeepsItsPlaceInSpiteOfItsLosses(t *testing.T) {
	inWorld(t, succeed, func(w *world) {
		ordered := func(tk *task.Task, _ *task.Progress) { tk.OrderingKey = "k" }
		first := w.granted(barred(2), ordered)
		second, _ := w.submit(ordered)
		w.sleep(5 * time.Second)
		w.expect("terminal succeeded", "settled", "terminal succeeded", "settled")
		if w.ends[second.ID][0].EndedAt.Before(w.ends[first.ID][0].EndedAt) {
			t.Error("it was overtaken")
		}
	})
}

func TestAThirdLossIsTheEndOfTheTaskWithoutARun(t *testing.T) {
	ran := false
	inWorld(t, func(ctx context.Context, items []backend.Item) []backend.Outcome {
		ran = true
		return succeed(ctx, items)
	}, func(w *world) {
		for _, losses := range []int{2, 3} { // found now, or published by somebody
			g := barred(3)
			if losses == 3 {
				g = eventlog.Grant{Losses: 3}
			}
			w.granted(g, func(_ *task.Task, p *task.Progress) { p.Losses = losses })
			w.sleep(time.Second)
		}
		w.expect("letter suspected_killer", "terminal dead", "settled", "letter suspected_killer", "terminal dead", "settled")
		for _, l := range w.letters {
			if l.Disposition != deadletter.SuspectedKiller || l.Code != fault.Lost || l.Attempts != 0 {
				t.Errorf("letter %+v", l)
			}
			if end := w.ends[l.TaskID][0]; end.Error.Code != fault.Lost {
				t.Errorf("terminal %+v", end)
			}
		}
		if ran {
			t.Error("a killer was run again")
		}
	})
}

func TestSuspectsRunOneAtATimeAndInCallsOfTheirOwn(t *testing.T) {
	running, most, together := 0, 0, 0
	inWorld(t, nil, func(w *world) {
		w.backend.Do = func(ctx context.Context, items []backend.Item) []backend.Outcome {
			suspect := slices.ContainsFunc(items, func(it backend.Item) bool { return it.Task.Payload.Text == "suspect" })
			w.mu.Lock()
			if suspect {
				running++
				most = max(most, running)
				together = max(together, len(items))
			}
			w.mu.Unlock()
			time.Sleep(2 * time.Second)
			w.mu.Lock()
			if suspect {
				running--
			}
			w.mu.Unlock()
			return succeed(ctx, items)
		}
		for i := range 20 {
			w.submit(func(tk *task.Task, p *task.Progress) {
				if i%4 == 0 {
					tk.Payload.Text = "suspect"
					p.Losses, p.Hop = 2, 1
				}
			})
		}
		w.sleep(time.Minute)
		if len(w.ends) != 20 || most != 1 || together != 1 {
			t.Errorf("%d ended; %d suspects ran side by side, with %d in a call", len(w.ends), most, together)
		}
	})
}

func TestATaskThatAnotherWorkerRunsWaits(t *testing.T) {
	held := eventlog.Grant{Err: eventlog.ErrHeld}
	t.Run("until its terminal is there", func(t *testing.T) {
		runs := 0
		inWorld(t, func(ctx context.Context, items []backend.Item) []backend.Outcome {
			runs += len(items)
			return succeed(ctx, items)
		}, func(w *world) {
			tk := w.granted(held, nil)
			w.sleep(90 * time.Second)
			w.expect()
			w.redis.SetState(tk.ID, terminal.State{Status: task.Succeeded})
			w.sleep(heldLook)
			w.expect("settled")
			if runs != 0 {
				t.Errorf("%d runs", runs)
			}
		})
	})
	t.Run("until the other has let go of it, and no attempt is counted", func(t *testing.T) {
		inWorld(t, succeed, func(w *world) {
			tk := w.granted(held, nil)
			w.sleep(10 * time.Second)
			w.redis.Grant(tk.ID, eventlog.Grant{})
			w.sleep(heldLook)
			w.expect("terminal succeeded", "settled")
			if attempts := w.ends[tk.ID][0].Attempts; len(attempts) != 1 || attempts[0].N != 1 {
				t.Errorf("attempts %+v", attempts)
			}
		})
	})
	t.Run("no longer than an honest try may take", func(t *testing.T) {
		inWorld(t, succeed, func(w *world) {
			w.redis.HoldUnlessInsisted(true)
			w.submit(nil)
			w.sleep(time.Minute)
			w.expect()
			w.sleep(time.Minute + heldLook)
			w.expect("terminal succeeded", "settled")
		})
	})
	t.Run("and is given back when its partition is taken away", func(t *testing.T) {
		inWorld(t, succeed, func(w *world) {
			w.granted(held, nil)
			w.sleep(5 * time.Second)
			w.mu.Lock()
			w.revoked = true
			w.mu.Unlock()
			w.loop.Revoked()
			w.sleep(heldLook)
			w.expect()
			if len(w.released) != 1 {
				t.Error("not given back")
			}
		})
	})
	t.Run("and without a store it runs", func(t *testing.T) {
		inWorld(t, succeed, func(w *world) {
			w.granted(held, nil)
			w.sleep(5 * time.Second)
			w.redis.Fail(errors.New("no redis"))
			w.sleep(heldLook)
			w.expect("terminal succeeded", "settled")
		})
	})
}

// heldLook is above the time between two looks at a claim that is held.
const heldLook = 1100 * time.Millisecond

func TestARecordThatComesBackBeforeItsAcknowledgementIsNotSettledWithItsForerunner(t *testing.T) {
	runs := 0
	inWorld(t, func(ctx context.Context, items []backend.Item) []backend.Outcome {
		runs += len(items)
		return succeed(ctx, items)
	}, func(w *world) {
		w.early = true
		w.granted(barred(2), nil)
		w.sleep(time.Second)
		if runs != 1 || len(w.ends) != 1 || !w.settled[1] || !w.settled[2] {
			t.Errorf("%d runs, %d ends, settled %v", runs, len(w.ends), w.settled)
		}
	})
}
