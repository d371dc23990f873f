package taskstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/projection"
	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// pipelined is how many commands go to Redis in one round trip.
const pipelined = 512

// States returns what the projection says of tasks, in the order asked. A task
// it knows nothing of has the zero state: open in generation 0.
func (s *Store) States(ctx context.Context, ids []task.ID) ([]terminal.State, error) {
	placed, err := s.StatesAt(ctx, ids)
	if err != nil {
		return nil, err
	}
	out := make([]terminal.State, len(placed))
	for i, p := range placed {
		out[i] = p.State
	}
	return out, nil
}

// Placed is the state of a task and how much of the log it accounts for.
type Placed struct {
	terminal.State
	At projection.Position // of the task's partition: State knows every record before At.Next
}

// StatesAt is States with how far the log was applied to each.
func (s *Store) StatesAt(ctx context.Context, ids []task.ID) ([]Placed, error) {
	out := make([]Placed, 0, len(ids))
	for chunk := range slices.Chunk(ids, pipelined) {
		part, err := s.statesAt(ctx, chunk)
		if err != nil {
			return nil, err
		}
		out = append(out, part...)
	}
	return out, nil
}

func (s *Store) statesAt(ctx context.Context, ids []task.ID) ([]Placed, error) {
	pipe := s.rdb.Pipeline()
	cmds, positions := make([]*redis.SliceCmd, len(ids)), s.Reads()
	for i, id := range ids {
		partition := s.Partition(id)
		positions.Ask(ctx, pipe, partition) // before the tasks: what they show is at least as new
		cmds[i] = pipe.HMGet(ctx, rediskey.Task(partition, id), stateFields()...)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("read tasks: %w", err)
	}
	out := make([]Placed, len(ids))
	for i, id := range ids {
		var err error
		if out[i].State, err = stateOf(cmds[i].Val()); err != nil {
			return nil, err
		}
		if out[i].At, err = positions.Of(s.Partition(id)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Terminals returns the winning terminals of tasks, and the states they belong
// to. A terminal is nil for a task that is open in its current generation, and
// for one whose result is past its time to live.
func (s *Store) Terminals(ctx context.Context, ids []task.ID) ([]*terminal.Terminal, []terminal.State, error) {
	readings, err := s.read(ctx, ids, stateFields(), nil)
	if err != nil {
		return nil, nil, err
	}
	terminals, states := make([]*terminal.Terminal, len(ids)), make([]terminal.State, len(ids))
	for i, r := range readings {
		terminals[i], states[i] = r.terminal, r.state
	}
	return terminals, states, nil
}

// stateFields are the fields of a hash that stateOf reads.
func stateFields() []string { return []string{fieldGeneration, fieldStatus, fieldOffset, fieldJob} }

// reading is one task as the projection has it.
type reading struct {
	fields   []any
	state    terminal.State
	terminal *terminal.Terminal // nil while the task is open, and when expired
	expired  bool               // it has ended, and its result is past its time to live
}

// read reads tasks with their results, pipelined, in the order asked. before
// may add commands ahead of a task's own: whoever finds a partition caught up
// and then its task unknown knows that it is.
func (s *Store) read(ctx context.Context, ids []task.ID, fields []string, before func(redis.Pipeliner, int32)) ([]reading, error) {
	out := make([]reading, 0, len(ids))
	for chunk := range slices.Chunk(ids, pipelined) {
		part, err := s.readChunk(ctx, chunk, fields, before)
		if err != nil {
			return nil, err
		}
		if err := s.settleDoubts(ctx, chunk, fields, part); err != nil {
			return nil, err
		}
		out = append(out, part...)
	}
	return out, nil
}

func (s *Store) readChunk(ctx context.Context, ids []task.ID, fields []string, before func(redis.Pipeliner, int32)) ([]reading, error) {
	pipe := s.rdb.Pipeline()
	hashes, results := make([]*redis.SliceCmd, len(ids)), make([]*redis.StringCmd, len(ids))
	for i, id := range ids {
		partition := s.Partition(id)
		if before != nil {
			before(pipe, partition)
		}
		hashes[i] = pipe.HMGet(ctx, rediskey.Task(partition, id), fields...)
		results[i] = pipe.Get(ctx, rediskey.Result(partition, id))
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) { // Nil: a task without a result
		return nil, fmt.Errorf("read tasks: %w", err)
	}
	out := make([]reading, len(ids))
	for i, id := range ids {
		out[i].fields = hashes[i].Val()
		var err error
		if out[i].state, err = stateOf(out[i].fields); err != nil {
			return nil, err
		}
		if out[i].terminal, err = terminalOf(id, out[i].state, results[i].Val()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// settleDoubts looks again at tasks that have ended and show no result. If the
// state is still the same, nothing came between state and result the first
// time: the result has expired. Else the task was reopened just then, and the
// second look tells how it is.
func (s *Store) settleDoubts(ctx context.Context, ids []task.ID, fields []string, part []reading) error {
	const looks = 3
	for range looks {
		var doubtful []int
		var again []task.ID
		for i, r := range part {
			if !r.state.Open() && r.terminal == nil && !r.expired {
				doubtful, again = append(doubtful, i), append(again, ids[i])
			}
		}
		if len(doubtful) == 0 {
			return nil
		}
		second, err := s.readChunk(ctx, again, fields, nil)
		if err != nil {
			return err
		}
		for j, i := range doubtful {
			second[j].expired = second[j].state == part[i].state && second[j].terminal == nil
			part[i] = second[j]
		}
	}
	return nil
}

// stateOf reads generation, status, offset and job, in this order.
func stateOf(v []any) (terminal.State, error) {
	var st terminal.State
	if g, ok := redisclient.Text(v, 0); ok {
		n, err := strconv.ParseUint(g, 10, 8)
		if err != nil {
			return st, fmt.Errorf("read task: generation %q", g)
		}
		st.Generation = uint8(n)
	}
	if o, ok := redisclient.Text(v, 2); ok {
		n, err := strconv.ParseInt(o, 10, 64)
		if err != nil {
			return st, fmt.Errorf("read task: offset %q", o)
		}
		st.Offset = n
	}
	status, _ := redisclient.Text(v, 1)
	st.Status = task.Status(status)
	st.RedriveJob, _ = redisclient.Text(v, 3)
	return st, nil
}

var errForeignReply = errors.New("reply is about another task")

// terminalOf decodes the result of a task that has ended; nil if there is none.
// A result that is read beside an open state is that of a generation which was
// closed or opened between the two reads: the state decides. It checks
// that the reply is about the task asked for: swapped replies on one
// connection have leaked data between tenants elsewhere.
func terminalOf(id task.ID, st terminal.State, raw string) (*terminal.Terminal, error) {
	if raw == "" || st.Open() {
		return nil, nil //nolint:nilnil // an open task has no terminal, and that is no error
	}
	var t terminal.Terminal
	if err := json.Unmarshal([]byte(raw), &t); err != nil {
		return nil, fmt.Errorf("read task %s: %w", id, err)
	}
	if t.TaskID != id {
		return nil, fmt.Errorf("read task %s: %w", id, errForeignReply)
	}
	return &t, nil
}
