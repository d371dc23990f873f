package attempt

import (
	"time"

	"github.com/penstock/penstock/schema/fault"
)

// MaxAttempts is how many counted tries a task has in one generation.
const MaxAttempts = 5

// MaxLosses is how many claims without an outcome make a suspected killer.
const MaxLosses = 3

// Next is what follows from a result.
type Next int

// What follows.
const (
	Succeed Next = iota // terminal succeeded
	Fail                // terminal failed; no dead letter
	Bury                // dead letter, then terminal dead
	Expire              // terminal expired
	Cancel              // terminal cancelled
	Retry               // counted: run again after a wait
	Requeue             // not counted: run again when the pool can
)

// Final reports whether the task ends.
func (n Next) Final() bool { return n != Retry && n != Requeue }

// Verdict is a decision with its reason.
type Verdict struct {
	Next    Next
	Counts  bool          // the try was an attempt
	Code    fault.Code    // empty on success
	Class   fault.Class   // empty on success
	Backoff time.Duration // the other side's wish; 0 if none
}

// Decide says what follows from the outcome of attempt number n.
func Decide(n int, err error) Verdict {
	if err == nil {
		return Verdict{Next: Succeed, Counts: true}
	}
	v := Verdict{Code: fault.CodeOf(err), Class: fault.ClassOf(err), Backoff: fault.RetryAfterOf(err)}
	switch {
	case v.Code == fault.Expired:
		v.Next = Expire
	case v.Code == fault.Cancelled:
		v.Next = Cancel
	case fault.RuleOf(v.Code).Next == fault.NextDeadLetter:
		v.Next = Bury
	case v.Class == fault.ClassPermanent:
		v.Next, v.Counts = Fail, true
	case v.Class == fault.ClassSystem, v.Class == fault.ClassNone:
		v.Next = Requeue
	case n >= MaxAttempts:
		v.Next, v.Counts = Bury, true
	default:
		v.Next, v.Counts = Retry, true
	}
	return v
}
