package redrive

import (
	"context"

	"github.com/penstock/penstock/internal/projection"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// Store is the projection of penstock.results; taskstore.Store is one.
type Store interface {
	States(ctx context.Context, ids []task.ID) ([]terminal.State, error)
	Projection(ctx context.Context, partition int32) (projection.Position, error)
}

var _ Store = (*taskstore.Store)(nil)
