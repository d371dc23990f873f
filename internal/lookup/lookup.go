// Package lookup decides what may be said of a task before anything of it is
// shown: whether its id was given to the caller, and what it means when the
// projection knows nothing of it. Every face that reads stands on it, so that
// they answer alike.
//
// An accepted id is never answered 404: the id itself proves that we issued it.
// Errors are *fault.Error.
package lookup

import (
	"time"

	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// retryAfter is the wait a caller is asked for while Redis is away or filling.
const retryAfter = time.Second

// IDs tells ids that a tenant was given from all others: *task.Minter.
type IDs interface {
	Check(id task.ID, tenant string) error
}

// CheckID returns the id if the tenant was given it. Malformed, invented and
// foreign ids get one and the same NotFound.
func CheckID(ids IDs, raw, tenant string) (task.ID, error) {
	id := task.ID(raw)
	if ids.Check(id, tenant) != nil {
		return "", fault.New(fault.NotFound, "no such task: use the task_id that the submit returned, with a key of the same tenant")
	}
	return id, nil
}

// Silence returns what a task that the projection knows nothing of means to its
// reader: Unavailable while the projection may still have to learn of it, Gone
// once its time to live is over, nil while it may be waiting in its queue.
func Silence(p taskstore.Params, id task.ID, caughtUp bool, now time.Time) error {
	switch {
	case p.Gone(id, now):
		return Expired()
	case !caughtUp:
		e := fault.New(fault.Unavailable, "results are being restored: try again")
		e.RetryAfter = retryAfter
		return e
	default:
		return nil
	}
}

// Unavailable is the answer while the projection cannot be read.
func Unavailable(err error) error {
	e := fault.New(fault.Unavailable, "results cannot be read just now: try again")
	e.RetryAfter, e.Err = retryAfter, err
	return e
}

// Expired is the answer for a result past its time to live.
func Expired() error {
	return fault.New(fault.Gone, "the task has ended and its result has expired")
}
