package attempt_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/attempt"
	"github.com/penstock/penstock/worker/attempt/attempttest"
	"github.com/penstock/penstock/worker/backend"
)

// memory is an attempt.Memory that answers after a time.
type memory struct {
	after time.Duration
	err   error
	lanes []string
}

func (m *memory) Recall(ctx context.Context, _ *task.Task, own json.RawMessage, lane string) (json.RawMessage, error) {
	m.lanes = append(m.lanes, lane)
	select {
	case <-time.After(m.after):
	case <-ctx.Done():
		return nil, &fault.Error{Code: fault.Unavailable, Class: fault.ClassSystem}
	}
	return json.RawMessage(`["before",` + string(own[1:])), m.err
}

func remembering(n int) *attempt.Try {
	t := newTry(n, false)
	t.Lane = "lane"
	t.Task.Memory, t.Task.Payload = true, task.Payload{Messages: json.RawMessage(`["now"]`)}
	return t
}

func TestATaskWithMemoryIsRunWithWhatWasSaidBefore(t *testing.T) {
	m := &memory{}
	inBubble(t, attempt.Params{Memory: m}, func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis) {
		try := remembering(1)
		var given string
		res := r.Do(t.Context(), call(func(_ context.Context, items []backend.Item) []backend.Outcome {
			given = string(items[0].Task.Payload.Messages)
			return []backend.Outcome{attempttest.OK("ok")}
		}), []*attempt.Try{try})
		if res[0].Err != nil || given != `["before","now"]` || len(m.lanes) != 1 || m.lanes[0] != "lane" {
			t.Errorf("got %+v with %s in %v", res[0], given, m.lanes)
		}
		if string(try.Task.Payload.Messages) != `["now"]` {
			t.Error("the task itself was changed: its record would be written anew with its memory")
		}
	})
}

func TestATaskNeverRunsWithoutItsMemory(t *testing.T) {
	for name, tc := range map[string]struct {
		memory attempt.Memory
		end    func(*attempt.Try)
		want   attempt.Next
		code   fault.Code
	}{
		"of a worker that has none": {nil, nil, attempt.Requeue, fault.Unavailable},
		"that cannot be had now":    {&memory{err: &fault.Error{Code: fault.Unavailable, Class: fault.ClassSystem}}, nil, attempt.Requeue, fault.Unavailable},
		"that no task has":          {&memory{err: fault.New(fault.Malformed, "no messages")}, nil, attempt.Bury, fault.Malformed},
		"that comes after a cancel": {
			&memory{after: time.Minute},
			func(t *attempt.Try) { time.AfterFunc(time.Second, func() { t.Cancel(attempt.ErrCallerCancelled) }) }, attempt.Cancel, fault.Cancelled,
		},
		"that comes after a drain": {
			&memory{after: time.Minute},
			func(t *attempt.Try) { time.AfterFunc(time.Second, func() { t.Cancel(attempt.ErrDraining) }) }, attempt.Requeue, fault.Interrupted,
		},
		"that comes after the deadline": {
			&memory{after: time.Minute},
			func(t *attempt.Try) { t.Task.Deadline = time.Now().Add(time.Second) }, attempt.Expire, fault.Expired,
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, attempt.Params{Memory: tc.memory}, func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis) {
				try := remembering(1)
				if tc.end != nil {
					tc.end(try)
				}
				res := r.Do(t.Context(), call(nil), []*attempt.Try{try})
				if v := r.Judge(try, res[0]); v.Next != tc.want || v.Code != tc.code || v.Counts || !res[0].Uncollected {
					t.Errorf("got %+v because of %v", v, res[0].Err)
				}
			})
		})
	}
}
