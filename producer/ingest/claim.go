package ingest

import (
	"context"
	"errors"
	"time"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// Claims takes large payloads in: *claimcheck.Desk.
type Claims interface {
	// Deposit returns what the record carries instead of the payload, once that
	// is durable.
	Deposit(ctx context.Context, p task.Payload) (task.Payload, error)
	// Limit is the largest payload that is taken.
	Limit() int64
}

// retryStore is the wait while the store of large payloads does not answer.
const retryStore = 2 * time.Second

// deposit replaces a large payload by a reference to it, and does what is to be
// done before the task is written. What is stored of a task that is then not
// accepted goes with its age.
func (in *Intake) deposit(ctx context.Context, d *draft) error {
	payload, err := in.d.Claims.Deposit(ctx, d.task.Payload)
	switch {
	case err == nil && d.before != nil:
		d.task.Payload = payload
		return d.before(ctx, d.task)
	case err == nil:
		d.task.Payload = payload
		return nil
	case errors.Is(err, blob.ErrTooLarge):
		return tooLarge("payload", "is larger than %d bytes; send less, or have blob_max_bytes raised on the server", in.d.Claims.Limit())
	}
	return &fault.Error{
		Code: fault.Unavailable, RetryAfter: retryStore, Err: err,
		Message: "large payloads cannot be stored just now; nothing was accepted, send again after the time in Retry-After",
	}
}
