package lookup

import (
	"context"
	"fmt"
	"time"

	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// Store is the projection: *taskstore.Store.
type Store interface {
	Get(ctx context.Context, id task.ID) (taskstore.Found, error)
	Params() taskstore.Params
}

// Waiter waits for the end of a task: *follow.Follower.
type Waiter interface {
	Wait(ctx context.Context, id task.ID) (*terminal.Terminal, uint8, error)
}

// Results brings large outputs back: *claimcheck.Desk. The error is of trouble
// that may pass.
type Results interface {
	Task(ctx context.Context, view api.Task) (_ api.Task, release func(), err error)
}

// Reader reads tasks one by one, at once or when they have ended. It is safe
// for concurrent use.
type Reader struct {
	store   Store
	waiter  Waiter
	results Results
}

// NewReader returns a reader of a projection.
func NewReader(store Store, waiter Waiter, results Results) *Reader {
	return &Reader{store: store, waiter: waiter, results: results}
}

// Task returns a task whose id was checked, its output in it. With a wait it
// returns once the task has ended, or with what is known when the wait is over
// or drain is done. The caller releases the task once it is sent. Errors:
// Unavailable while it cannot be read, Gone past the result's time to live.
func (r *Reader) Task(ctx context.Context, id task.ID, wait time.Duration, drain context.Context) (_ api.Task, release func(), err error) {
	view, err := r.view(ctx, id, wait, drain)
	if err != nil {
		return api.Task{}, nil, err
	}
	view, release, err = r.results.Task(ctx, view)
	if err != nil {
		return api.Task{}, nil, Unavailable(err)
	}
	return view, release, nil
}

func (r *Reader) view(ctx context.Context, id task.ID, wait time.Duration, drain context.Context) (api.Task, error) {
	found, err := r.store.Get(ctx, id)
	if wait > 0 && found.Terminal == nil && !found.Expired && !r.store.Params().Gone(id, time.Now()) {
		view, ended, waitErr := r.await(ctx, id, wait, drain)
		if ended || waitErr != nil {
			return view, waitErr
		}
		found, err = r.store.Get(ctx, id)
	}
	if err != nil {
		return api.Task{}, Unavailable(err)
	}
	if found.Expired {
		return api.Task{}, Expired()
	}
	if !found.Known {
		if err := Silence(r.store.Params(), id, found.CaughtUp, time.Now()); err != nil {
			return api.Task{}, err
		}
	}
	return found.View, nil
}

// await waits for the end. It reports false when the time is up or the server
// drains: the caller then answers with what is known.
func (r *Reader) await(ctx context.Context, id task.ID, wait time.Duration, drain context.Context) (api.Task, bool, error) {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	defer context.AfterFunc(drain, cancel)()
	t, generation, err := r.waiter.Wait(waiting, id)
	switch {
	case err == nil:
		return api.OfTerminal(t, generation), true, nil
	case ctx.Err() != nil:
		return api.Task{}, false, fmt.Errorf("wait for task: %w", context.Cause(ctx))
	case waiting.Err() != nil:
		return api.Task{}, false, nil
	default:
		return api.Task{}, false, err
	}
}
