package batch

import "time"

// Policy bounds the batches of a pool; zero values are defaults.
type Policy struct {
	MaxTasks  int           // in a batch; default 32
	MaxTokens int           // estimated, in a batch; 0: no budget
	MaxDelay  time.Duration // longest wait for company while a call could start; default 100 ms, negative: never wait
	Margin    time.Duration // a batch leaves this long before its tightest deadline demands it; default 10 ms
}

func (p Policy) withDefaults() Policy {
	if p.MaxTasks <= 0 {
		p.MaxTasks = 32
	}
	if p.MaxDelay == 0 {
		p.MaxDelay = 100 * time.Millisecond
	}
	if p.Margin == 0 {
		p.Margin = 10 * time.Millisecond
	}
	return p
}

// Item is one waiting task.
type Item[T any] struct {
	Value    T
	Group    string    // what calls are counted by: the model
	Key      string    // items of one group and key may share a batch
	Max      int       // most items of a batch with this one; 1: it goes alone and at once
	Tokens   int       // estimated cost, for the budget
	Deadline time.Time // zero: none
}

// Reason says why a batch was cut.
type Reason string

// Reasons.
const (
	Full     Reason = "full"     // it holds as many as may share a call
	Tokens   Reason = "tokens"   // the next item would exceed the token budget
	Delay    Reason = "delay"    // it waited for company long enough
	Deadline Reason = "deadline" // a deadline could no longer wait
	Idle     Reason = "idle"     // a call could start, and waiting was not worth it
	Drain    Reason = "drain"    // the worker stops
)

// Reasons returns every reason, so that metrics can be registered at zero.
func Reasons() []Reason { return []Reason{Full, Tokens, Delay, Deadline, Idle, Drain} }

// Batch is the tasks of one call, in the order they came.
type Batch[T any] struct {
	Group  string
	Key    string
	Items  []T
	Tokens int
	Reason Reason
	Waited time.Duration // of its first item

	solo bool
	run  run
}
