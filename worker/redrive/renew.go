package redrive

import (
	"context"
	"errors"
	"fmt"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/schema/task"
)

// Blobs is the store of large payloads: *blob.Store.
type Blobs interface {
	// Renew returns a reference to the same content whose life begins now.
	Renew(ctx context.Context, ref task.Ref) (task.Ref, error)
}

var _ Blobs = (*blob.Store)(nil)

// renew makes a payload in the blob store last as long as the record that is
// about to be published again. The value keeps the old reference, the record's
// header bears the new one.
func (r *Redriver) renew(ctx context.Context, c *candidate) (Reason, error) {
	ref := c.task.Payload.Ref
	if ref == nil {
		return ReasonNone, nil
	}
	if r.p.Blobs == nil {
		return ReasonNone, fmt.Errorf("renew payload of task %s: %w", c.task.ID, claimcheck.ErrNoStore)
	}
	renewed, err := r.p.Blobs.Renew(ctx, *ref)
	switch {
	case err == nil:
		c.task.Payload.Ref = &renewed
		return ReasonNone, nil
	case errors.Is(err, blob.ErrNotFound), errors.Is(err, blob.ErrCorrupt), errors.Is(err, blob.ErrRef):
		return ReasonPayloadLost, nil
	}
	return ReasonNone, fmt.Errorf("renew payload of task %s: %w", c.task.ID, err)
}
