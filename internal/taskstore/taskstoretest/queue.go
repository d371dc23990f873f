package taskstoretest

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

var queue = taskstore.Queue{Tenant: tenant, OrderingKey: "session 7"}

// enqueue puts a task into the queue of two and checks how it stands then.
func (b bundle) enqueue(t *testing.T, q taskstore.Queue, id task.ID, deadline time.Time, want taskstore.Standing) {
	t.Helper()
	got, err := b.store.Enqueue(t.Context(), []taskstore.Waiting{{Queue: q, ID: id, Deadline: deadline, Now: b.now}}, 2)
	if err != nil || got[0] != want {
		t.Errorf("task %s stands at %d, %v; want %d", id, got, err, want)
	}
}

func queues(t *testing.T, open Open) {
	params := taskstore.Params{Partitions: 3}
	t.Run("and one that is in already stays, also at the limit", func(t *testing.T) {
		b := setup(t, open, params)
		later := b.now.Add(time.Hour)
		first := b.id()
		b.enqueue(t, queue, first, later, taskstore.Enqueued)
		b.enqueue(t, queue, b.id(), later, taskstore.Enqueued)
		b.enqueue(t, queue, b.id(), later, taskstore.QueueFull)
		b.enqueue(t, queue, first, later, taskstore.WasQueued)
		b.enqueue(t, taskstore.Queue{Tenant: tenant, OrderingKey: "another"}, b.id(), later, taskstore.Enqueued)
		b.enqueue(t, taskstore.Queue{Tenant: "another", OrderingKey: queue.OrderingKey}, b.id(), later, taskstore.Enqueued)
		if err := b.store.Dequeue(t.Context(), queue, first, b.id()); err != nil {
			t.Fatal(err)
		}
		b.enqueue(t, queue, b.id(), later, taskstore.Enqueued)
		b.enqueue(t, queue, first, later, taskstore.QueueFull)
	})
	t.Run("and who is past the deadline makes room", func(t *testing.T) {
		b := setup(t, open, params)
		repeated := b.id()
		b.enqueue(t, queue, repeated, b.now.Add(-time.Second), taskstore.Enqueued)
		b.enqueue(t, queue, b.id(), b.now.Add(-time.Second), taskstore.Enqueued)
		b.enqueue(t, queue, repeated, b.now.Add(time.Second), taskstore.WasQueued) // lives longer now
		b.enqueue(t, queue, repeated, b.now.Add(-time.Second), taskstore.WasQueued)
		b.enqueue(t, queue, b.id(), b.now, taskstore.Enqueued)
		b.enqueue(t, queue, b.id(), b.now, taskstore.QueueFull)
	})
	t.Run("and cleaning leaves those that are open", func(t *testing.T) { cleans(t, open) })
	t.Run("however many ask at once", func(t *testing.T) { queuesAtOnce(t, open) })
	t.Run("and is gone when the last of its tasks must be", func(t *testing.T) {
		b := setup(t, open, taskstore.Params{MaxAge: time.Hour})
		b.enqueue(t, queue, b.id(), b.now, taskstore.Enqueued)
		left, err := b.rdb.TTL(t.Context(), rediskey.Queue(queue.Tenant, queue.OrderingKey)).Result()
		if err != nil || left <= 59*time.Minute || left > time.Hour {
			t.Errorf("kept for %s, %v", left, err)
		}
	})
}

func cleans(t *testing.T, open Open) {
	b := setup(t, open, taskstore.Params{Partitions: only})
	later := b.now.Add(time.Hour)
	clean := func(want int) {
		t.Helper()
		if got, err := b.store.CleanQueue(t.Context(), queue); err != nil || got != want {
			t.Errorf("looked at %d, %v; want %d", got, err, want)
		}
	}
	clean(0)
	ended, redriven := b.id(), b.id()
	b.enqueue(t, queue, ended, later, taskstore.Enqueued)
	b.enqueue(t, queue, redriven, later, taskstore.Enqueued)
	clean(2)
	b.enqueue(t, queue, b.id(), later, taskstore.QueueFull)
	b.apply(t, 0, b.ended(ended, task.Failed, 0), b.ended(redriven, task.Dead, 0), b.ended(redriven, terminal.Reopened, 1))
	clean(2)
	b.enqueue(t, queue, b.id(), later, taskstore.Enqueued)
	b.enqueue(t, queue, b.id(), later, taskstore.QueueFull)
}

func queuesAtOnce(t *testing.T, open Open) {
	b := setup(t, open, taskstore.Params{})
	const limit = 7
	var in atomic.Int32
	var wg sync.WaitGroup
	for range 5 * limit {
		id := b.id()
		wg.Go(func() {
			got, err := b.store.Enqueue(t.Context(), []taskstore.Waiting{{Queue: queue, ID: id, Deadline: b.now.Add(time.Hour), Now: b.now}}, limit)
			if err != nil {
				t.Error(err)
			}
			if err == nil && got[0] == taskstore.Enqueued {
				in.Add(1)
			}
		})
	}
	wg.Wait()
	if n := in.Load(); n != limit {
		t.Errorf("%d are in a queue of %d", n, limit)
	}
}
