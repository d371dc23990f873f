package consume

import (
	"context"
	"time"

	"github.com/penstock/penstock/schema/wire"
)

// Delivery is one record, handed out once per assignment of its partition. It
// counts against the group's limits until it is settled or released.
type Delivery struct {
	Record    wire.Record
	Topic     string
	Partition int32
	Offset    int64
	Timestamp time.Time // CreateTime, or LogAppendTime where the topic says so

	// Group is the consumer group's generation when the partition was
	// assigned. It stays while the partition stays, so it may fence.
	Group int32

	holder Holder
	owner  *owner
	track  *Tracker // the owner's when this was handed out
	bytes  int
	gone   bool // settled or released; guarded by the group's lock
}

// Holder is who handed a delivery out and hears what became of it. A Group is
// one for its own.
type Holder interface {
	// Finish ends the delivery's time in flight; calls after the first are
	// ignored.
	Finish(d *Delivery, settled bool)
	// Revoked is Delivery.Revoked.
	Revoked(d *Delivery) bool
	// ProveOwned is Delivery.ProveOwned.
	ProveOwned(ctx context.Context, d *Delivery) error
}

// HeldBy returns a copy of d for another source than a Group.
func HeldBy(h Holder, d Delivery) *Delivery {
	d.holder = h
	return &d
}

// Settle says that the record's outcome is durable, so its offset may be
// committed. On a partition that was taken away it has no effect on commits.
// Safe for concurrent use; only the first of Settle and Release counts.
func (d *Delivery) Settle() { d.holder.Finish(d, true) }

// Release gives the record back unsettled: a later owner, or the next start,
// gets it again.
func (d *Delivery) Release() { d.holder.Finish(d, false) }

// Revoked reports whether the partition was taken away since. Only this lets a
// worker drop a task that it has not started.
func (d *Delivery) Revoked() bool { return d.holder.Revoked(d) }

// ProveOwned asks the broker whether this member still owns the partition: it is
// nil only when a commit of this member and its present generation, begun after
// the call, was accepted, and the partition was not taken away meanwhile. A
// worker that was frozen or cut off cannot tell by itself.
//
// ErrNotOwned says that the partition was taken away; any other error proves
// nothing either way. Callers share commits. The group's CommitLoop must run;
// it waits until ctx is done at most. Safe for concurrent use.
func (d *Delivery) ProveOwned(ctx context.Context) error { return d.holder.ProveOwned(ctx, d) }

// holder is the group as the Holder of its deliveries.
type holder struct{ g *Group }

func (h holder) Finish(d *Delivery, settled bool) { h.g.finish(d, settled) }

func (h holder) Revoked(d *Delivery) bool {
	h.g.mu.Lock()
	defer h.g.mu.Unlock()
	return d.owner.revoked || d.track != d.owner.track
}

func (h holder) ProveOwned(ctx context.Context, d *Delivery) error { return h.g.prove(ctx, d) }

// Sink takes what a group reads. Its methods are called with the group's lock
// held: they hand over and return, and call nothing of the group.
type Sink interface {
	// Deliver takes fresh deliveries, in log order per partition.
	Deliver(ds []*Delivery)
	// Revoked says that some deliveries handed out before are Revoked now.
	Revoked()
}
