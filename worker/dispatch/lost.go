package dispatch

import (
	"time"

	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/attempt"
)

const (
	// heldPause is how long a task waits before it looks again whether another
	// worker still runs it, or has ended it.
	heldPause = time.Second
	// suspectPause is how long a suspect waits for the worker's one place.
	suspectPause = 250 * time.Millisecond
)

// errKiller is why a suspected killer is given up.
func errKiller() error {
	return fault.New(fault.Lost, "%d workers took the task and were not heard of again", attempt.MaxLosses)
}

// remember takes note of the losses that a claim told of. They are no attempts.
func (l *Loop) remember(e *entry, r attempt.Result) {
	e.progress.Losses = max(e.progress.Losses, r.Losses)
	if r.Lost == nil {
		return
	}
	l.log.Warn("a claim had no outcome", "task_id", e.task.ID, "losses", r.Losses, "worker", r.Lost.Worker, "fence", r.Lost.Fence.String())
	e.progress = e.progress.Remember(task.Attempt{
		N: e.progress.Attempts + 1, Fence: r.Lost.Fence.String(), Worker: r.Lost.Worker,
		StartedAt: r.Lost.Claimed, EndedAt: r.Lost.Beat,
		Code: string(fault.Lost), Class: string(fault.ClassLost), Message: "the worker was not heard of again",
	})
}

// suspected deals with a task that was lost again. Its count must be in Kafka
// before it runs, so that no emptied Redis forgets it. One with an ordering key
// would lose its place: its count stays in Redis.
func (l *Loop) suspected(e *entry) {
	switch {
	case e.progress.Losses >= attempt.MaxLosses:
		l.buryEntry(e, errKiller())
	case l.draining || e.revoked():
		l.rest(e)
		l.giveBack(e)
	case e.task.OrderingKey != "":
		l.rest(e)
		l.comeBack(e, suspectPause)
	default:
		l.publishAgain(e, l.lane(e), 0)
	}
}

// await lets a task wait while another worker runs it: most often the one that
// had its partition before, whose terminal then settles this record too. It
// costs no attempt.
func (l *Loop) await(e *entry) {
	l.rest(e)
	if l.draining || e.revoked() {
		l.giveBack(e)
		return
	}
	if e.heldFrom.IsZero() {
		e.heldFrom = time.Now()
	}
	e.try-- // nothing was written under the fence
	l.comeBack(e, heldPause)
}

// insists reports whether a task has waited long enough for another worker. No
// honest try takes this long, and a claim is a hint, never a lock.
func (l *Loop) insists(e *entry) bool {
	return !e.heldFrom.IsZero() && time.Since(e.heldFrom) >= l.p.HeldLimit
}

// seclude gets a suspect the worker's one place for those; it reports false if
// it has to wait.
func (l *Loop) seclude(e *entry) bool {
	if !e.suspect() {
		return true
	}
	if !l.p.Runner.Seclude() {
		l.alarms.stop(e.expiry)
		l.comeBack(e, suspectPause)
		return false
	}
	e.secluded = true
	return true
}

func (l *Loop) readmit(e *entry) {
	if e.secluded {
		e.secluded = false
		l.p.Runner.Readmit()
	}
}
