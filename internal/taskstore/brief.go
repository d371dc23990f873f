package taskstore

import (
	"context"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// Brief is what there is to know of a task before its events are read.
type Brief struct {
	State    terminal.State
	Known    bool // Redis has heard of the task
	Ended    bool // its result can be read
	CaughtUp bool // its partition holds all that the log held when it was built
}

// Briefs reads what there is to know of tasks, in the order asked, without
// their results. It makes one round trip for some hundred tasks.
func (s *Store) Briefs(ctx context.Context, ids []task.ID) ([]Brief, error) {
	out := make([]Brief, 0, len(ids))
	for chunk := range slices.Chunk(ids, pipelined) {
		part, err := s.briefs(ctx, chunk)
		if err != nil {
			return nil, err
		}
		if err := s.lookAgain(ctx, chunk, part); err != nil {
			return nil, err
		}
		out = append(out, part...)
	}
	return out, nil
}

// lookAgain settles whether tasks that have ended without a result have
// expired: a redrive between the two reads looks the same, once.
func (s *Store) lookAgain(ctx context.Context, ids []task.ID, part []Brief) error {
	var index []int
	var doubtful []task.ID
	for i, b := range part {
		if !b.State.Open() && !b.Ended {
			index, doubtful = append(index, i), append(doubtful, ids[i])
		}
	}
	if len(index) == 0 {
		return nil
	}
	second, err := s.briefs(ctx, doubtful)
	if err != nil {
		return err
	}
	for n, i := range index {
		part[i] = second[n]
	}
	return nil
}

func (s *Store) briefs(ctx context.Context, ids []task.ID) ([]Brief, error) {
	pipe := s.rdb.Pipeline()
	hashes, results := make([]*redis.SliceCmd, len(ids)), make([]*redis.IntCmd, len(ids))
	positions := s.Reads()
	fields := append(stateFields(), fieldHint)
	for i, id := range ids {
		partition := s.Partition(id)
		positions.Ask(ctx, pipe, partition) // first: caught up, and then unknown, is unknown
		hashes[i] = pipe.HMGet(ctx, rediskey.Task(partition, id), fields...)
		results[i] = pipe.Exists(ctx, rediskey.Result(partition, id))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("read tasks: %w", err)
	}
	out := make([]Brief, len(ids))
	for i, id := range ids {
		st, err := stateOf(hashes[i].Val())
		if err != nil {
			return nil, err
		}
		at, err := positions.Of(s.Partition(id))
		if err != nil {
			return nil, err
		}
		out[i] = Brief{State: st, Known: known(hashes[i].Val()), Ended: results[i].Val() > 0, CaughtUp: at.CaughtUp()}
	}
	return out, nil
}
