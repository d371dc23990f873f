package producer

import (
	"context"

	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/producer/cancel"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/producer/sweep"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
)

// memory is the projection in Redis, as ingest and cancel need it.
type memory struct{ *taskstore.Store }

var (
	_ ingest.Memory = memory{}
	_ ingest.Queues = memory{}
	_ cancel.Store  = memory{}
	_ sweep.Store   = memory{}
)

// Known implements ingest.Memory.
func (m memory) Known(ctx context.Context, ids []task.ID) ([]bool, error) {
	found, err := m.GetMany(ctx, ids)
	if err != nil {
		return nil, err
	}
	out := make([]bool, len(ids))
	for i, f := range found {
		out[i] = f.Known
	}
	return out, nil
}

// Queued implements ingest.Hinter.
func (m memory) Queued(ctx context.Context, hints []ingest.Hint) error {
	out := make([]taskstore.Hint, len(hints))
	for i, h := range hints {
		out[i] = taskstore.Hint{
			ID: h.ID, Tenant: h.Tenant, Status: task.Queued, Model: h.Model, Class: h.Class, Labels: h.Labels, CreatedAt: h.CreatedAt,
			Deadline: h.Deadline,
		}
	}
	return m.Hint(ctx, out)
}

// Task implements cancel.Store.
func (m memory) Task(ctx context.Context, id task.ID) (api.Task, bool, error) {
	found, err := m.Get(ctx, id)
	return found.View, found.Known, err
}
