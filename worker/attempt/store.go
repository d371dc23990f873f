package attempt

import (
	"context"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// Log is the tasks' token streams; eventlog.Log is one. Each method is one
// round trip for all that it is given; ClaimAll and Append answer per item, in
// order. Repeating a call whose answer was lost is harmless.
type Log interface {
	ClaimAll(ctx context.Context, claims []eventlog.Claim) []eventlog.Grant
	Append(ctx context.Context, batch []eventlog.Append) []error
	Beat(ctx context.Context, holds []eventlog.Hold) error
	Release(ctx context.Context, holds []eventlog.Hold) error
}

// Store is what the projection knows of tasks; taskstore.Store is one.
type Store interface {
	States(ctx context.Context, ids []task.ID) ([]terminal.State, error)
	Hint(ctx context.Context, hints []taskstore.Hint) error
}

var (
	_ Log   = (*eventlog.Log)(nil)
	_ Store = (*taskstore.Store)(nil)
)
