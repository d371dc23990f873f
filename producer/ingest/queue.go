package ingest

import (
	"context"
	"errors"
	"time"

	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// Queues counts the tasks that wait behind each ordering key; all of it may be
// lost.
type Queues interface {
	// Enqueue counts a task, unless limit are in the queue already.
	Enqueue(ctx context.Context, q taskstore.Queue, id task.ID, deadline, now time.Time, limit int) (taskstore.Standing, error)
	// Dequeue takes tasks out.
	Dequeue(ctx context.Context, q taskstore.Queue, ids ...task.ID) error
	// CleanQueue takes out what has ended, and returns how many tasks it looked
	// at.
	CleanQueue(ctx context.Context, q taskstore.Queue) (looked int, err error)
}

// retryQueue is the least wait of a caller whose queue is full.
const retryQueue = time.Second

// enqueue counts a task among those that wait behind its ordering key. The
// error is fault.Throttled: as many as may wait do. A task that is in already
// may go on, and so may all while Redis does not answer: the limit protects, it
// does not promise.
func (in *Intake) enqueue(ctx context.Context, d *draft) error {
	if in.p.KeyQueueLimit == 0 || d.task.OrderingKey == "" || in.exempt(d.task.Tenant) {
		return nil
	}
	standing := in.standing(ctx, d)
	if standing == taskstore.QueueFull && in.clean(ctx, d.queue()) {
		standing = in.standing(ctx, d)
	}
	d.enqueued = standing == taskstore.Enqueued
	if standing != taskstore.QueueFull {
		return nil
	}
	err := fault.New(fault.Throttled, "%d tasks wait behind this ordering_key or session_id already, and nothing was accepted; "+
		"send again after the time in Retry-After, or use more keys", in.p.KeyQueueLimit)
	err.RetryAfter = max(retryQueue, restAfter(in.p.KeyQueueLimit))
	return err
}

// standing asks how a draft stands to its queue. Without an answer it counts as
// one of those that were in before: nobody takes it out again.
func (in *Intake) standing(ctx context.Context, d *draft) taskstore.Standing {
	standing := taskstore.WasQueued
	if !in.memoryAnswers() {
		return standing
	}
	in.ask(ctx, func(ctx context.Context) error {
		answer, err := in.d.Queues.Enqueue(ctx, d.queue(), d.task.ID, d.task.Deadline, d.task.Timestamp, in.p.KeyQueueLimit)
		if err == nil {
			standing = answer
		}
		return err
	})
	return standing
}

// clean takes what has ended out of a full queue, and reports whether it is worth
// asking again: also when Redis went away, which the next question finds.
func (in *Intake) clean(ctx context.Context, q taskstore.Queue) bool {
	return in.cleaner.do(q, func() int {
		looked := 0
		in.ask(ctx, func(ctx context.Context) (err error) {
			looked, err = in.d.Queues.CleanQueue(ctx, q)
			return err
		})
		return looked
	})
}

// dequeue takes tasks out of their queues that this node put there, and that
// were certainly not written.
func (in *Intake) dequeue(ctx context.Context, unwritten ...*draft) {
	queues := make(map[taskstore.Queue][]task.ID)
	for _, d := range unwritten {
		queues[d.queue()] = append(queues[d.queue()], d.task.ID)
	}
	for q, ids := range queues {
		if !in.memoryAnswers() {
			return // they leave with their deadlines
		}
		in.ask(ctx, func(ctx context.Context) error { return in.d.Queues.Dequeue(ctx, q, ids...) })
	}
}

// leaves reports whether a draft that failed has no business in its queue.
func (d *draft) leaves(err error) bool {
	return d.enqueued && err != nil && !errors.Is(err, tasktopic.ErrUnknown)
}

func (d *draft) queue() taskstore.Queue {
	return taskstore.Queue{Tenant: d.task.Tenant, OrderingKey: d.task.OrderingKey}
}
