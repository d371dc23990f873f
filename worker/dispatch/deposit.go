package dispatch

import (
	"context"
	"errors"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// Results takes in outputs that are too large for a record: *claimcheck.Desk.
type Results interface {
	// Wants reports whether an output is one of those.
	Wants(o *task.Output) bool
	// DepositOutput returns the reference to one, once it is durable.
	DepositOutput(ctx context.Context, o *task.Output) (*task.Ref, error)
	// Limit is the largest output that is taken, in bytes.
	Limit() int64
}

// deposit stores a large output for as long as that takes: the terminal that
// refers to it is written after it. One over the limit becomes a failure that
// says so.
func (l *Loop) deposit(e *entry) {
	output := e.out.terminal.Output
	l.workers.Go(func() {
		ref, err := l.p.Results.DepositOutput(context.WithoutCancel(l.work), output)
		l.post(func() {
			switch {
			case err == nil:
				e.out.terminal.Output, e.out.terminal.OutputRef, e.out.terminal.FinishReason = nil, ref, output.FinishReason
				l.send(e)
			case errors.Is(err, blob.ErrTooLarge):
				l.finish(e, task.Failed, fault.New(fault.TooLarge, "the result is larger than %d bytes; have blob_max_bytes raised", l.p.Results.Limit()))
			default:
				l.again(e.out.failures, func() { l.send(e) })
				e.out.failures++
			}
		})
	})
}
