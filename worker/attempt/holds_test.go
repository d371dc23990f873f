package attempt_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/worker/attempt"
	"github.com/penstock/penstock/worker/attempt/attempttest"
	"github.com/penstock/penstock/worker/backend"
)

// taking is a backend whose calls take a time.
func taking(d time.Duration, err error) attempt.Call {
	return call(func(_ context.Context, items []backend.Item) []backend.Outcome {
		time.Sleep(d)
		if err != nil {
			return backend.Fail(len(items), err)
		}
		out := make([]backend.Outcome, len(items))
		for i := range out {
			out[i] = attempttest.OK("ok")
		}
		return out
	})
}

func TestRunningTriesBeatOnceASecondAndAreReleasedWithTheirOutcome(t *testing.T) {
	for name, err := range map[string]error{"a success": nil, "a failure": fault.New(fault.Unavailable, "500"), "a drain": attempt.ErrDraining} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, attempt.Params{}, func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis) {
				ts := tries(1) // a failed batch would be split and run again
				done := make(chan struct{})
				go func() { defer close(done); r.Do(t.Context(), taking(10*time.Second+time.Millisecond, err), ts) }()
				time.Sleep(5 * time.Second)
				for _, tr := range ts {
					if !redis.Held(tr.Task.ID) {
						t.Fatal("not claimed while it runs")
					}
				}
				<-done
				synctest.Wait()
				for _, tr := range ts {
					if n := redis.Beats(tr.Task.ID); n < 9 || n > 10 {
						t.Errorf("%d beats in 10 s", n)
					}
					if redis.Held(tr.Task.ID) {
						t.Error("its claim was not released")
					}
				}
				time.Sleep(10 * time.Second)
				if n := redis.Beats(ts[0].Task.ID); n > 10 {
					t.Errorf("%d beats: it beats without running", n)
				}
			})
		})
	}
}

func TestAReleaseThatTheStoreDidNotTakeIsRepeated(t *testing.T) {
	inBubble(t, attempt.Params{}, func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis) {
		ts := tries(2)
		done := make(chan struct{})
		go func() { defer close(done); r.Do(t.Context(), taking(time.Second, nil), ts) }()
		time.Sleep(500 * time.Millisecond)
		redis.Fail(errors.New("away"))
		<-done
		time.Sleep(10 * time.Second)
		redis.Fail(nil)
		time.Sleep(2 * time.Second)
		if redis.Held(ts[0].Task.ID) || redis.Held(ts[1].Task.ID) {
			t.Error("a claim stays after its task's outcome: it will count as lost")
		}
	})
}

func TestWhatIsHeldOrBarredDoesNotRun(t *testing.T) {
	inBubble(t, attempt.Params{}, func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis) {
		ts := tries(4)
		lost := &eventlog.Lost{Worker: "dead"}
		redis.Grant(ts[0].Task.ID, eventlog.Grant{Err: eventlog.ErrHeld})
		redis.Grant(ts[1].Task.ID, eventlog.Grant{Losses: 2, Lost: lost, Err: eventlog.ErrBarred})
		redis.Grant(ts[2].Task.ID, eventlog.Grant{Losses: 1, Lost: lost})
		ran := 0
		results := r.Do(t.Context(), call(func(_ context.Context, items []backend.Item) []backend.Outcome {
			ran += len(items)
			return []backend.Outcome{attempttest.OK("ok"), attempttest.OK("ok")}
		}), ts)
		if ran != 2 || !results[0].Held || !results[1].Barred || results[1].Losses != 2 || results[2].Lost != lost || results[2].Output == nil || results[3].Lost != nil {
			t.Errorf("%d ran: %+v", ran, results)
		}
	})
}
