package ingest

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// Queues counts the tasks that wait behind each ordering key; all of it may be
// lost.
type Queues interface {
	// Enqueue counts tasks, unless limit are in the queue already, and says how
	// each stands, in the order given.
	Enqueue(ctx context.Context, tasks []taskstore.Waiting, limit int) ([]taskstore.Standing, error)
	// Dequeue takes tasks out.
	Dequeue(ctx context.Context, q taskstore.Queue, ids ...task.ID) error
	// CleanQueue takes out what has ended, and returns how many tasks it looked
	// at.
	CleanQueue(ctx context.Context, q taskstore.Queue) (looked int, err error)
}

// retryQueue is the least wait of a caller whose queue is full.
const retryQueue = time.Second

// enqueue counts tasks among those that wait behind their ordering keys, all in
// one question, and returns for each why it must not go on. The error is
// fault.Throttled: as many as may wait do. A task that is in already may go on,
// and so may all while Redis does not answer: the limit protects, it does not
// promise. A nil draft is none.
func (in *Intake) enqueue(ctx context.Context, drafts ...*draft) []error {
	full := in.count(ctx, slices.DeleteFunc(slices.Clone(drafts), func(d *draft) bool { return d == nil || !in.waits(d) }))
	full = append(in.count(ctx, in.cleaned(ctx, full)), slices.DeleteFunc(full, func(d *draft) bool { return d.cleaned })...)
	errs := make([]error, len(drafts))
	for i, d := range drafts {
		if d != nil && slices.Contains(full, d) {
			errs[i] = in.queueFull()
		}
	}
	return errs
}

// waits reports whether a draft is one of those that are counted.
func (in *Intake) waits(d *draft) bool {
	return in.p.KeyQueueLimit > 0 && d.task.OrderingKey != "" && !in.exempt(d.task.Tenant)
}

func (in *Intake) queueFull() error {
	err := fault.New(fault.Throttled, "%d tasks wait behind this ordering_key or session_id already, and nothing was accepted; "+
		"send again after the time in Retry-After, or use more keys", in.p.KeyQueueLimit)
	err.RetryAfter = max(retryQueue, restAfter(in.p.KeyQueueLimit))
	return err
}

// count asks how drafts stand to their queues, and returns those that found them
// full. Without an answer they count as in before: nobody takes them out again.
func (in *Intake) count(ctx context.Context, drafts []*draft) (full []*draft) {
	if len(drafts) == 0 || !in.memoryAnswers() {
		return nil
	}
	asked := make([]taskstore.Waiting, len(drafts))
	for i, d := range drafts {
		asked[i] = taskstore.Waiting{Queue: d.queue(), ID: d.task.ID, Deadline: d.task.Deadline, Now: d.task.Timestamp}
	}
	in.ask(ctx, func(ctx context.Context) error {
		standings, err := in.d.Queues.Enqueue(ctx, asked, in.p.KeyQueueLimit)
		for i, standing := range standings {
			drafts[i].enqueued = standing == taskstore.Enqueued
			if standing == taskstore.QueueFull {
				full = append(full, drafts[i])
			}
		}
		return err
	})
	return full
}

// cleaned cleans the queues that drafts found full, each once, and returns the
// drafts for which it is worth asking again.
func (in *Intake) cleaned(ctx context.Context, full []*draft) (again []*draft) {
	done := map[taskstore.Queue]bool{}
	for _, d := range full {
		worth, known := done[d.queue()]
		if !known {
			worth = in.clean(ctx, d.queue())
			done[d.queue()] = worth
		}
		if d.cleaned = worth; worth {
			again = append(again, d)
		}
	}
	return again
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
