// Package backend is the port to inference engines: what the worker asks of
// one, whatever protocol it speaks. Each protocol is a subpackage, which turns
// every failure into a fault code; nobody else looks at an engine's answers.
package backend

import (
	"context"
	"encoding/json"
	"time"

	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// Backend is one engine endpoint. It is safe for concurrent use.
type Backend interface {
	// Join says which tasks may share a call: those of one key, at most max of
	// them. A max of 1 means that the task runs alone (a stream; chat over
	// HTTP, which has no batch form).
	Join(t *task.Task) (key string, max int)

	// Run executes the items in one call and returns exactly one outcome per
	// item, in their order. The items have one Join key and are at most its
	// max. It returns when every item has an outcome; an item whose own context
	// ends is answered with that context's fault, and its slot in the engine is
	// freed. An answer whose count or indexes do not match fails every item.
	Run(ctx context.Context, items []Item) []Outcome
}

// Item is one task's part of a call.
type Item struct {
	Task  *task.Task
	Fence event.Fence     // of this try, for the engine's log
	Ctx   context.Context // this item's deadline and cancellation; nil means the call's
	Emit  func(Piece)     // called in order while the answer grows; nil if nobody listens
}

// Context returns the item's own context, or the call's.
func (i Item) Context(call context.Context) context.Context {
	if i.Ctx != nil {
		return i.Ctx
	}
	return call
}

// Piece is one piece of an answer: a text, something else, or both, in valid
// UTF-8.
type Piece struct {
	Text  string
	Index int // which choice

	// Choice is what the choice has besides its text, as the OpenAI API has it in
	// a stream: {"delta":{"tool_calls":[…]},"logprobs":{…}}. Nil: nothing.
	Choice json.RawMessage
}

// Outcome is what became of one item: an output, or a *fault.Error.
type Outcome struct {
	Output     *task.Output
	Usage      *task.Usage
	Err        error
	FirstToken time.Duration // from the call's start; 0 if not streamed
}

// Prober is a backend that can be asked whether it is well.
type Prober interface {
	Probe(ctx context.Context) error
}

// Lister is a backend that can say which models it serves.
type Lister interface {
	Models(ctx context.Context) ([]string, error)
}

// Fail returns n outcomes with one error.
func Fail(n int, err error) []Outcome {
	out := make([]Outcome, n)
	for i := range out {
		out[i].Err = err
	}
	return out
}
