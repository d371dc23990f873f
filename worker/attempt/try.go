package attempt

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// ErrCallerCancelled is the cause of a try's context when the task's cancel is
// durable.
var ErrCallerCancelled error = fault.New(fault.Cancelled, "the caller cancelled the task")

// ErrDraining is the cause of a try's context when the worker has no more time.
var ErrDraining error = fault.New(fault.Interrupted, "the worker is shutting down")

// Try is one run of a task under one fence.
type Try struct {
	Task     *task.Task
	Progress task.Progress // as the record brought it, with what was counted since
	Fence    event.Fence
	Lane     string // the tasks topic that the record belongs to
	N        int    // number of the attempt, from 1; repeats that do not count share it
	Again    bool   // another fence may have shown tokens: clients are told to forget them
	Insist   bool   // run even if another worker seems to run the task

	// Owned asks the brokers whether the task's partition is still this worker's:
	// nil only if it was, after the call. Without it no stream that Redis lost
	// is begun again.
	Owned func(context.Context) error

	whole *task.Task // with the payload that was collected or recalled; nil: Task has it

	mu     sync.Mutex
	cancel context.CancelCauseFunc // nil until it runs
	cause  error                   // set by Cancel before it ran
}

// input is the task as a backend is given it.
func (t *Try) input() *task.Task {
	if t.whole != nil {
		return t.whole
	}
	return t.Task
}

// Cancel stops the try, now or as soon as it starts, with a *fault.Error as the
// cause. Only the first cause counts. Safe for concurrent use.
func (t *Try) Cancel(cause error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cause == nil {
		t.cause = cause
	}
	if t.cancel != nil {
		t.cancel(t.cause)
	}
}

// start gives the try its context: the task's deadline, the attempt's timeout
// and Cancel all end it, each with its own fault as the cause.
func (t *Try) start(ctx context.Context, timeout time.Duration, brokerNow time.Time) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	t.mu.Lock()
	if t.cause != nil {
		cancel(t.cause)
	}
	t.cancel = cancel
	t.mu.Unlock()

	left := t.Task.Deadline.Sub(brokerNow)
	end := fault.New(fault.Expired, "the task's deadline passed while it ran")
	if timeout < left {
		left, end = timeout, fault.New(fault.Timeout, "the attempt took longer than %s", timeout)
	}
	timer := time.AfterFunc(max(0, left), func() { cancel(end) })
	return ctx, func() {
		timer.Stop()
		cancel(context.Canceled)
	}
}

// opening is the event that the try's claim writes.
func (t *Try) opening(now time.Time) event.Event {
	e := event.Event{ID: event.ID{Fence: t.Fence}, Type: event.Started, TaskID: t.Task.ID, At: now, Attempt: t.N}
	if t.Again {
		e.Type = event.Restart
		e.Reason = fmt.Sprintf("attempt %d begins", t.N)
	}
	return e
}

// Result is what became of a try.
type Result struct {
	Output  *task.Output
	Usage   *task.Usage
	Err     error // nil on success; a cancelled or expired try has its cause
	Backend string
	Started time.Time
	Ended   time.Time

	// Moot is true when the task had ended, or moved to a newer generation,
	// before the try began: nothing ran and nothing is to be written.
	Moot bool
	// Held is true when another worker runs the task: nothing ran here.
	Held bool
	// Barred is true when the task was lost again and its record does not say
	// so yet: nothing ran here. Losses has the number to publish.
	Barred bool
	// Losses is how many claims of the task had no outcome before this one, and
	// Lost the one that this try found; nil: none.
	Losses int
	Lost   *eventlog.Lost
	// Uncollected is true when the payload could not be had, as Err says: nothing
	// ran, and nothing was written under the fence.
	Uncollected bool
	// Suspect is true when the try was in a batch that failed as a whole and
	// could not be split to the end, because the backend stopped taking calls.
	Suspect bool
}
