package attempt_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/worker/attempt"
	"github.com/penstock/penstock/worker/attempt/attempttest"
	"github.com/penstock/penstock/worker/backend"
)

// claims is an attempt.Claims that answers after a time, and counts what is
// held of it.
type claims struct {
	after time.Duration
	asked int
	held  int
}

func (c *claims) Collect(ctx context.Context, p task.Payload) (task.Payload, func(), error) {
	c.asked++
	select {
	case <-time.After(c.after):
	case <-ctx.Done():
		return p, nil, ctx.Err()
	}
	c.held++
	return task.Payload{Text: "collected"}, func() { c.held-- }, nil
}

func referring(n int) *attempt.Try {
	t := newTry(n, false)
	t.Task.Payload = task.Payload{Ref: &task.Ref{Key: "k"}}
	return t
}

func TestACollectedPayloadIsHeldAsLongAsItRuns(t *testing.T) {
	c := &claims{after: time.Second}
	inBubble(t, attempt.Params{Claims: c}, func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis) {
		try := referring(1)
		held := 0
		res := r.Do(t.Context(), call(func(_ context.Context, items []backend.Item) []backend.Outcome {
			held = c.held
			return []backend.Outcome{attempttest.OK(items[0].Task.Payload.Text)}
		}), []*attempt.Try{try})
		if res[0].Err != nil || res[0].Output.Text != "collected" || held != 1 || c.held != 0 {
			t.Errorf("got %+v, held %d while it ran and %d after", res[0], held, c.held)
		}
		if try.Task.Payload.Ref == nil || try.Task.Payload.Text != "" {
			t.Error("the task itself was changed: its record would be written anew with the payload")
		}
	})
}

func TestATaskThatHasEndedIsNotCollected(t *testing.T) {
	c := &claims{}
	inBubble(t, attempt.Params{Claims: c}, func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis) {
		try := referring(1)
		redis.SetState(try.Task.ID, terminal.State{Status: task.Cancelled, Offset: 1})
		res := r.Do(t.Context(), call(nil), []*attempt.Try{try})
		if !res[0].Moot || c.asked != 0 {
			t.Errorf("got %+v after asking %d times", res[0], c.asked)
		}
	})
}

func TestWhatEndsATryEndsItsCollecting(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(*attempt.Try)
		want    fault.Code
		counts  bool
	}{
		"a cancel":              {func(t *attempt.Try) { time.AfterFunc(time.Second, func() { t.Cancel(attempt.ErrCallerCancelled) }) }, fault.Cancelled, false},
		"a drain":               {func(t *attempt.Try) { time.AfterFunc(time.Second, func() { t.Cancel(attempt.ErrDraining) }) }, fault.Interrupted, false},
		"the deadline":          {func(t *attempt.Try) { t.Task.Deadline = time.Now().Add(time.Second) }, fault.Expired, false},
		"the attempt's timeout": {func(*attempt.Try) {}, fault.Unavailable, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := &claims{after: time.Hour}
			inBubble(t, attempt.Params{Claims: c, Timeout: 10 * time.Second}, func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis) {
				try := referring(1)
				tc.prepare(try)
				res := r.Do(t.Context(), call(nil), []*attempt.Try{try})
				if v := r.Judge(try, res[0]); v.Code != tc.want || v.Counts != tc.counts || c.held != 0 {
					t.Errorf("got %+v because of %v, want %s", v, res[0].Err, tc.want)
				}
			})
		})
	}
}

func TestOnlyTheTryWithoutItsPayloadIsLeftOut(t *testing.T) {
	inBubble(t, attempt.Params{}, func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis) {
		ts := []*attempt.Try{newTry(1, false), referring(2), newTry(3, false)}
		ran := 0
		res := r.Do(t.Context(), call(func(_ context.Context, items []backend.Item) []backend.Outcome {
			ran = len(items)
			return []backend.Outcome{attempttest.OK("ok"), attempttest.OK("ok")}
		}), ts)
		v := r.Judge(ts[1], res[1])
		if ran != 2 || res[0].Err != nil || res[2].Err != nil || v.Next != attempt.Requeue || v.Counts || !strings.Contains(res[1].Err.Error(), claimcheck.ErrNoStore.Error()) {
			t.Errorf("ran %d: %v, %v, %v", ran, res[0].Err, res[1].Err, res[2].Err)
		}
	})
}
