package redrive

import (
	"context"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// Projection says how far the results were applied to the store.
type Projection struct {
	Next  int64 // offset of the next record to apply
	Known bool  // false: the store lost its data and will be rebuilt
}

// Store is the projection of penstock.results.
type Store interface {
	States(ctx context.Context, ids []task.ID) ([]terminal.State, error)
	Projection(ctx context.Context, partition int32) (Projection, error)
}
