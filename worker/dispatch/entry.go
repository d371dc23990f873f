package dispatch

import (
	"time"

	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/wire"
	"github.com/penstock/penstock/worker/attempt"
	"github.com/penstock/penstock/worker/consume"
	"github.com/penstock/penstock/worker/schedule"
)

// state is where a task in flight is.
type state int

const (
	queued     state = iota // in the scheduler
	waiting                 // for a time: a backoff, or NotBefore
	forming                 // in a batch that is not closed, or closed and without a backend
	running                 // on a backend
	publishing              // its outcome is on the way to Kafka
	gone                    // settled or given back; a leftover in the scheduler
)

// identity is what makes two records the same work.
type identity struct {
	id         task.ID
	generation uint8
}

// entry is one task in flight. Records of the same task and generation join
// it: they settle on its outcome.
type entry struct {
	task       *task.Task
	progress   task.Progress // of the record, and what was counted here since
	rec        wire.Record
	first      *consume.Delivery // gives the fence its group generation, and the dead letter its origin
	deliveries []*consume.Delivery
	next       []*consume.Delivery // what it is being published again as, read before we heard so

	state    state
	failures int          // of whole batches that it was in and that could not be split to the end
	failedOn string       // backend of the last failure
	try      int          // local try: the next fence's last field
	faults   int          // of the system, in a row: the pool was not ready for it
	retried  bool         // its next try is a retry, which the budget must allow
	unsaved  bool         // progress counts what no record says yet
	inQueue  bool         // the scheduler has it, perhaps as a leftover
	holds    bool         // its ordering key, since it was popped
	secluded bool         // it has the worker's one place for suspects
	old      bool         // a later generation of the task is in flight: nothing of this one counts any more
	dying    bool         // it waits for the end of a flood
	heldFrom time.Time    // when another worker was first found to run it; zero: not so
	now      *attempt.Try // while running
	out      outbox       // while publishing
	wake     *alarm       // the end of a wait
	expiry   *alarm       // the deadline, and the grace after it
}

// outbox is what must be written, in this order, before the entry settles.
type outbox struct {
	letter   *deadletter.Letter
	terminal *terminal.Terminal
	again    *republish
	failures int
}

type republish struct {
	to       string
	progress task.Progress
	tier     bool
}

func (e *entry) identity() identity { return identity{e.task.ID, e.progress.Generation} }

// item is the entry as the scheduler sees it.
func (e *entry) item() schedule.Item[*entry] {
	t := e.task
	return schedule.Item[*entry]{
		Model: t.Model, Class: t.Class, Tenant: t.Tenant, Key: t.OrderingKey,
		Deadline: t.Deadline.UnixMilli(), Cost: costOf(e), Value: e,
	}
}

// costOf guesses a task's work in tokens: four bytes of payload each, and what
// it may generate.
func costOf(e *entry) int {
	const unknown = 256
	cost := len(e.rec.Value) / 4
	if ref := e.task.Payload.Ref; ref != nil {
		cost += int(ref.Bytes / 4)
	}
	if e.task.Kind != task.Embedding {
		cost += e.task.Params.Int("max_tokens", unknown)
	}
	return cost
}

// fence is the token of the entry's next try.
func (e *entry) fence() (event.Fence, error) {
	return event.NewFence(e.progress.Generation, e.progress.Hop, e.first.Group, e.try)
}

// join takes in another record of the same work. If it is further than ours,
// because another owner has published it since, we go on from there: the entry's
// outcome settles it, and a record of a lower hop would not count its attempts
// and would lose against the fence of those.
func (e *entry) join(d *consume.Delivery, p task.Progress) {
	e.deliveries = append(e.deliveries, d)
	if p.Hop <= e.progress.Hop {
		return
	}
	p.Attempts, p.Losses = max(p.Attempts, e.progress.Attempts), max(p.Losses, e.progress.Losses)
	e.progress, e.rec, e.first = p, d.Record, d
}

// handedOn reports whether a record of the same work is what the entry is being
// published again as. It must not join: it would be settled with the entry, and
// nobody would run it.
func (e *entry) handedOn(p task.Progress) bool {
	return e.out.again != nil && p.Hop > e.progress.Hop
}

// revoked reports whether every delivery's partition was taken away.
func (e *entry) revoked() bool {
	for _, d := range e.deliveries {
		if !d.Revoked() {
			return false
		}
	}
	return true
}

// started reports whether work on the entry has begun that must be finished
// here whoever owns the partition.
func (e *entry) started() bool { return e.state == running || e.state == publishing }

// share is how many tasks its next call may have, of at most so many. A batch
// that failed as one and could not be split, because the backend stopped taking
// calls, shows an outage or a culprit in it. The first time it is taken for an
// outage: else all that was in flight would run one by one after each. From the
// second time on the calls are halved, until the culprit is alone.
func (e *entry) share(most int) int {
	return max(1, most>>max(0, e.failures-1))
}

// suspect reports whether the task may be what killed its workers: then it runs
// alone.
func (e *entry) suspect() bool { return e.progress.Losses >= attempt.MaxLosses-1 }

// expired reports whether the task's deadline has passed.
func (e *entry) expired(now time.Time) bool { return !now.Before(e.task.Deadline) }
