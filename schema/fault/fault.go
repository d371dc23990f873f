// Package fault is the closed vocabulary of failures: one code per cause, and
// for each code what happens next.
//
// The same code is the `reason` label of a metric, the `cause` of a dead letter
// and the `error.type` of the API, so a failure keeps its name from the backend
// to the operator's screen.
package fault

import (
	"errors"
	"fmt"
	"time"
)

// Code names one cause of failure.
type Code string

// Codes a task can end or be retried with.
const (
	Malformed    Code = "malformed"    // undecodable record or body, unknown schema version
	Rejected     Code = "rejected"     // the backend refused this input for good, or does no such thing (501)
	Unauthorized Code = "unauthorized" // credentials missing or refused
	Throttled    Code = "throttled"    // told to slow down: a rate, a quota, a full queue
	Unavailable  Code = "unavailable"  // nobody answered, or a 5xx other than 501 did
	Timeout      Code = "timeout"      // one attempt took too long
	Expired      Code = "expired"      // the task's own deadline passed
	Cancelled    Code = "cancelled"    // the caller stopped the task
	Interrupted  Code = "interrupted"  // the worker gave the task back (drain, revoke)
	Lost         Code = "lost"         // claimed, then nothing was heard of the attempt
	Fenced       Code = "fenced"       // a newer attempt owns the task
	Internal     Code = "internal"     // our bug
	BlobLost     Code = "blob_lost"    // a payload or result in the blob store is gone or damaged
)

// Codes of the front door. Of these only TooLarge can end an accepted task: a
// backend's answer was over the limit.
const (
	NotFound    Code = "not_found"              // unknown or foreign task, unknown model or route
	Forbidden   Code = "forbidden"              // known caller, missing scope
	TooLarge    Code = "too_large"              // over a size limit
	Unsupported Code = "unsupported_media_type" // not JSON, or an unknown encoding
	Conflict    Code = "conflict"               // an idempotency key reused with another body
	NotAllowed  Code = "method_not_allowed"     // the route exists, the method does not
	Gone        Code = "gone"                   // past the result's time to live
)

// Class says whose fault it was, and so whether an attempt is spent.
type Class string

// Classes of failure.
const (
	// ClassTask: this input, this time. Counts an attempt and is retried.
	ClassTask Class = "task"
	// ClassSystem: the backend or the road to it. Counts nothing: the pool
	// pauses, so an outage sends no task to the dead letters.
	ClassSystem Class = "system"
	// ClassPermanent: will fail the same way for ever. Never retried.
	ClassPermanent Class = "permanent"
	// ClassLost: claimed without an outcome; retried, and at the third loss
	// the task is a suspected killer.
	ClassLost Class = "lost"
	// ClassNone: not a failure of the task at all (drain, fence).
	ClassNone Class = "none"
)

// Next is what the worker does with a task after a failure.
type Next string

// What comes next.
const (
	NextRetry      Next = "retry"       // run again after a wait
	NextRequeue    Next = "requeue"     // run again at once, free of charge
	NextFail       Next = "fail"        // terminal `failed`, no dead letter
	NextDeadLetter Next = "dead_letter" // dead letter first, then terminal `dead`
	NextEnd        Next = "end"         // terminal named by the code itself
	NextDrop       Next = "drop"        // write nothing: somebody else owns the task
)

// Rule is what one code means.
type Rule struct {
	Code    Code
	Class   Class // when the error does not carry its own
	Next    Next
	Breaker bool // feeds the backend's circuit breaker
	Status  int  // HTTP status a waiting caller sees once the task has ended so
}

// rules is the table of the package, in the order of its documentation.
var rules = [...]Rule{
	{Malformed, ClassPermanent, NextDeadLetter, false, 400},
	{Rejected, ClassPermanent, NextFail, false, 400},
	{Unauthorized, ClassSystem, NextRetry, true, 502},
	{Throttled, ClassSystem, NextRetry, false, 429},
	{Unavailable, ClassTask, NextRetry, true, 503},
	{Timeout, ClassTask, NextRetry, true, 504},
	{Expired, ClassPermanent, NextEnd, false, 504},
	{Cancelled, ClassPermanent, NextEnd, false, 409},
	{Interrupted, ClassNone, NextRequeue, false, 503},
	{Lost, ClassLost, NextRetry, false, 500},
	{Fenced, ClassNone, NextDrop, false, 500},
	{Internal, ClassTask, NextRetry, false, 500},
	{BlobLost, ClassPermanent, NextDeadLetter, false, 500},
	{NotFound, ClassPermanent, NextFail, false, 404},
	{Forbidden, ClassPermanent, NextFail, false, 403},
	{TooLarge, ClassPermanent, NextFail, false, 413},
	{Unsupported, ClassPermanent, NextFail, false, 415},
	{Conflict, ClassPermanent, NextFail, false, 422},
	{NotAllowed, ClassPermanent, NextFail, false, 405},
	{Gone, ClassPermanent, NextFail, false, 410},
}

// Codes returns every code, so that metrics can be registered at zero.
func Codes() []Code {
	out := make([]Code, len(rules))
	for i, r := range rules {
		out[i] = r.Code
	}
	return out
}

// RuleOf returns the rule of a code; an unknown code is Internal's.
func RuleOf(c Code) Rule {
	internal := Rule{}
	for _, r := range rules {
		if r.Code == c {
			return r
		}
		if r.Code == Internal {
			internal = r
		}
	}
	return internal
}

// Error is a failure with its code. Adapters (backends, stores, the door)
// create it; only the attempt decides what follows from it.
type Error struct {
	Code       Code
	Class      Class         // empty: the code's own
	Message    string        // cause and cure for people; never a payload, never a secret
	Backend    string        // who said so, if anybody
	Status     int           // the HTTP status a backend answered, 0 if none
	RetryAfter time.Duration // the other side's wish, 0 if none
	Err        error         // wrapped cause, for logs
}

// New returns an Error of a code with a message for people.
func New(c Code, format string, args ...any) *Error {
	return &Error{Code: c, Message: fmt.Sprintf(format, args...)}
}

// Error implements error.
func (e *Error) Error() string {
	msg := string(e.Code)
	if e.Message != "" {
		msg += ": " + e.Message
	}
	if e.Err != nil {
		msg += ": " + e.Err.Error()
	}
	return msg
}

// Unwrap returns the wrapped cause.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf returns the outermost code in err's chain, or Internal: an error
// nobody classified is our bug, not the caller's.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return Internal
}

// ClassOf returns the class of err: the error's own if it has one, else that
// of its code.
func ClassOf(err error) Class {
	if e, ok := errors.AsType[*Error](err); ok && e.Class != "" {
		return e.Class
	}
	return RuleOf(CodeOf(err)).Class
}

// RetryAfterOf returns the wait the other side asked for, or 0.
func RetryAfterOf(err error) time.Duration {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.RetryAfter
	}
	return 0
}
