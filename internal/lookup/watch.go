package lookup

import (
	"context"
	"time"

	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/schema/task"
)

// Briefs is the projection as a stream asks it before its first event:
// *taskstore.Store.
type Briefs interface {
	Briefs(ctx context.Context, ids []task.ID) ([]taskstore.Brief, error)
	Params() taskstore.Params
}

// Coverer knows which tasks' ends will be heard without Redis:
// *follow.Follower.
type Coverer interface{ Covers(id task.ID) bool }

// Open looks tasks up whose ids were checked, before any of their events is
// sent, and returns the watches that are still to be followed: none if the
// watcher has seen the end of each. Errors: Gone past a result's time to live,
// Unavailable while nothing can be said of them.
func Open(ctx context.Context, store Briefs, tail Coverer, watches []follow.Watch) ([]follow.Watch, error) {
	ids := make([]task.ID, len(watches))
	for i, w := range watches {
		ids[i] = w.ID
	}
	briefs, err := store.Briefs(ctx, ids)
	if err != nil {
		return uncovered(tail, watches, err)
	}
	var open []follow.Watch
	for i, w := range watches {
		b := briefs[i]
		if seen := w.After.Fence; seen.Terminal() && seen.Generation() >= b.State.Generation {
			continue
		}
		expired := !b.State.Open() && !b.Ended
		if expired || !b.Known && store.Params().Gone(w.ID, time.Now()) {
			return nil, Expired()
		}
		open = append(open, w)
	}
	return open, nil
}

// uncovered is the trouble of a Redis that cannot be read, unless the log's own
// end will bring every task's terminal.
func uncovered(tail Coverer, watches []follow.Watch, err error) ([]follow.Watch, error) {
	for _, w := range watches {
		if !tail.Covers(w.ID) {
			return nil, Unavailable(err)
		}
	}
	return watches, nil
}
