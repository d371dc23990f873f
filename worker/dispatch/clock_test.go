package dispatch_test

import (
	"context"
	"testing"
	"time"

	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/worker/backend"
)

// onWrongClocks runs f on machines whose clock is ten minutes off the brokers'.
func onWrongClocks(t *testing.T, do func(context.Context, []backend.Item) []backend.Outcome, slots int, f func(w *world)) {
	for name, ahead := range map[string]time.Duration{"a machine ten minutes slow": 10 * time.Minute, "a machine ten minutes fast": -10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, do, f, func(w *world) { w.ahead, w.slots = ahead, slots })
		})
	}
}

// inAMinute sets the deadline a minute from now by the brokers' clock.
func (w *world) inAMinute(tk *task.Task, _ *task.Progress) {
	tk.Timestamp, tk.Deadline = w.BrokerNow(), w.BrokerNow().Add(time.Minute)
}

// expires checks that a task ends as expired two seconds after its deadline.
func (w *world) expires() {
	w.t.Helper()
	tk, _ := w.submit(w.inAMinute)
	w.sleep(62*time.Second - time.Millisecond)
	w.expect()
	w.sleep(11 * time.Millisecond) // a try's own end adds to it
	w.expect("terminal expired", "settled")
	if end := w.ends[tk.ID][0]; end.EndedAt.Sub(tk.Deadline) < 2*time.Second || end.EndedAt.Sub(tk.Deadline) > 3*time.Second {
		w.t.Errorf("the terminal says it ended %s after the deadline", end.EndedAt.Sub(tk.Deadline))
	}
}

func TestDeadlinesAreByTheBrokersClock(t *testing.T) {
	t.Run("of a task that waits for room", func(t *testing.T) {
		onWrongClocks(t, succeed, 0, func(w *world) { w.expires(); w.room() })
	})
	t.Run("of a task that runs", func(t *testing.T) { onWrongClocks(t, hanging, 4, (*world).expires) })
	t.Run("of a task that succeeds in time", func(t *testing.T) {
		onWrongClocks(t, succeed, 4, func(w *world) {
			w.submit(w.inAMinute)
			w.sleep(time.Second)
			w.expect("terminal succeeded", "settled")
		})
	})
}

func TestAWaitInATierIsByTheBrokersClock(t *testing.T) {
	onWrongClocks(t, failing(&fault.Error{Code: fault.Unavailable, Class: fault.ClassTask, RetryAfter: 40 * time.Second}), 4, func(w *world) {
		w.submit(nil)
		w.sleep(time.Second)
		if len(w.again) != 1 || w.again[0].to != topic.Tiers()[1].Topic() {
			w.t.Fatalf("published again: %+v", w.again)
		}
		if left := w.again[0].p.NotBefore.Sub(w.BrokerNow()); left < 38*time.Second || left > 40*time.Second {
			w.t.Errorf("the record waits another %s", left)
		}
	})
}
