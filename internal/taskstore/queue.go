package taskstore

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"time"

	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/task"
)

//go:embed lua/enqueue.lua
var enqueueSource string

var enqueueScript = redisclient.NewScript(enqueueSource)

// Queue is what the tasks of one tenant and ordering key wait in.
type Queue struct{ Tenant, OrderingKey string }

// Standing is how a task stands to a queue.
type Standing int

// Standings, as Enqueue returns them.
const (
	QueueFull Standing = iota // not in: as many as may wait are in already
	Enqueued                  // in, since this call
	WasQueued                 // in, since before
)

// Waiting is a task on its way into a queue.
type Waiting struct {
	Queue    Queue
	ID       task.ID
	Deadline time.Time
	Now      time.Time // by the brokers' clock
}

// Enqueue counts tasks among those that wait in their queues, in the order given,
// unless limit are in one already: of calls at once no more get in than there is
// room for. A full queue first drops those whose deadline is past. Who has ended
// stays until CleanQueue, at most until the last deadline: the queue is an upper
// bound, and may be lost. Where Redis does not answer for one, none is answered
// for.
func (s *Store) Enqueue(ctx context.Context, tasks []Waiting, limit int) ([]Standing, error) {
	out := make([]Standing, 0, len(tasks))
	for chunk := range slices.Chunk(tasks, pipelined) {
		calls := make([]redisclient.Call, len(chunk))
		for i, w := range chunk {
			calls[i] = redisclient.Call{
				Keys: []string{rediskey.Queue(w.Queue.Tenant, w.Queue.OrderingKey)},
				Args: []any{string(w.ID), w.Deadline.UnixMilli(), limit, w.Now.UnixMilli(), seconds(s.p.MaxAge)},
			}
		}
		for i, cmd := range enqueueScript.RunAll(ctx, s.rdb, calls) {
			standing, err := cmd.Int()
			if err != nil {
				return nil, fmt.Errorf("enqueue task %s: %w", chunk[i].ID, err)
			}
			out = append(out, Standing(standing))
		}
	}
	return out, nil
}

// Dequeue takes tasks out of a queue in which they wait no more.
func (s *Store) Dequeue(ctx context.Context, q Queue, ids ...task.ID) error {
	if len(ids) == 0 {
		return nil
	}
	members := make([]any, len(ids))
	for i, id := range ids {
		members[i] = string(id)
	}
	if err := s.rdb.ZRem(ctx, rediskey.Queue(q.Tenant, q.OrderingKey), members...).Err(); err != nil {
		return fmt.Errorf("dequeue tasks: %w", err)
	}
	return nil
}

// CleanQueue takes out of a queue the tasks that have ended, and returns how
// many it looked at: all, which Enqueue bounds.
func (s *Store) CleanQueue(ctx context.Context, q Queue) (looked int, err error) {
	members, err := s.rdb.ZRange(ctx, rediskey.Queue(q.Tenant, q.OrderingKey), 0, -1).Result()
	if err != nil {
		return 0, fmt.Errorf("read queue: %w", err)
	}
	ids := make([]task.ID, len(members))
	for i, m := range members {
		ids[i] = task.ID(m)
	}
	states, err := s.States(ctx, ids)
	if err != nil {
		return 0, err
	}
	var ended []task.ID
	for i, st := range states {
		if !st.Open() {
			ended = append(ended, ids[i])
		}
	}
	return len(ids), s.Dequeue(ctx, q, ended...)
}
