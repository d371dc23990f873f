package backend

import (
	"context"
	"sync"

	"github.com/penstock/penstock/schema/fault"
)

// Together returns a context for one call that serves several items: it ends
// with ctx, or once every item's own context has ended. A batch goes on while
// somebody still wants its answer. The caller calls stop when the call is over.
func Together(ctx context.Context, items []Item) (together context.Context, stop func()) {
	together, cancel := context.WithCancelCause(ctx)
	var mu sync.Mutex
	left := len(items)
	stops := make([]func() bool, 0, len(items))
	for _, it := range items {
		if it.Ctx == nil {
			continue
		}
		stops = append(stops, context.AfterFunc(it.Ctx, func() {
			mu.Lock()
			defer mu.Unlock()
			if left--; left == 0 {
				cancel(context.Cause(it.Ctx))
			}
		}))
	}
	return together, func() {
		for _, stop := range stops {
			stop()
		}
		cancel(context.Canceled)
	}
}

// Left answers each item whose own context ended before the call did with that
// context's fault: its caller waits no longer. A call's only item keeps what it
// has, if that is a success.
func Left(items []Item, outs []Outcome, name string) {
	for i, it := range items {
		if it.Ctx != nil && it.Ctx.Err() != nil && (outs[i].Err != nil || len(items) > 1) {
			outs[i] = Outcome{Err: Ended(it.Ctx, name)}
		}
	}
}

// Ended turns the end of a context into a fault. A cause that is a fault
// already, from whoever ended it, is kept; a deadline is a timeout, and anything
// else a cancellation.
func Ended(ctx context.Context, name string) error {
	cause := context.Cause(ctx)
	if fault.CodeOf(cause) != fault.Internal {
		return cause
	}
	if ctx.Err() == context.DeadlineExceeded {
		return &fault.Error{Code: fault.Timeout, Backend: name, Message: "no answer in time", Err: cause}
	}
	return &fault.Error{Code: fault.Cancelled, Backend: name, Message: "the call was cancelled", Err: cause}
}
