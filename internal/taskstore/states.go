package taskstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// pipelined is how many commands go to Redis in one round trip.
const pipelined = 512

// States returns what the projection says of tasks, in the order asked. A task
// it knows nothing of has the zero state: open in generation 0.
func (s *Store) States(ctx context.Context, ids []task.ID) ([]terminal.State, error) {
	out := make([]terminal.State, 0, len(ids))
	err := s.each(ctx, ids, []string{fieldGeneration, fieldStatus, fieldOffset, fieldJob}, func(_ task.ID, v []any) error {
		st, err := stateOf(v)
		out = append(out, st)
		return err
	})
	return out, err
}

// Terminals returns the winning terminals of tasks, nil for a task that is
// open in its current generation, and the states they belong to.
func (s *Store) Terminals(ctx context.Context, ids []task.ID) ([]*terminal.Terminal, []terminal.State, error) {
	terminals, states := make([]*terminal.Terminal, 0, len(ids)), make([]terminal.State, 0, len(ids))
	fields := []string{fieldGeneration, fieldStatus, fieldOffset, fieldJob, fieldTerminal}
	err := s.each(ctx, ids, fields, func(id task.ID, v []any) error {
		st, err := stateOf(v)
		if err != nil {
			return err
		}
		t, err := terminalOf(id, v, len(fields)-1)
		terminals, states = append(terminals, t), append(states, st)
		return err
	})
	return terminals, states, err
}

// each reads the same fields of many tasks, pipelined, and calls visit in the
// order of ids.
func (s *Store) each(ctx context.Context, ids []task.ID, fields []string, visit func(task.ID, []any) error) error {
	for len(ids) > 0 {
		n := min(len(ids), pipelined)
		pipe := s.rdb.Pipeline()
		cmds := make([]*redis.SliceCmd, n)
		for i, id := range ids[:n] {
			cmds[i] = pipe.HMGet(ctx, rediskey.Task(s.Partition(id), id), fields...)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return fmt.Errorf("read tasks: %w", err)
		}
		for i, c := range cmds {
			if err := visit(ids[i], c.Val()); err != nil {
				return err
			}
		}
		ids = ids[n:]
	}
	return nil
}

// stateOf reads generation, status, offset and job, in this order.
func stateOf(v []any) (terminal.State, error) {
	var st terminal.State
	if g, ok := text(v, 0); ok {
		n, err := strconv.ParseUint(g, 10, 8)
		if err != nil {
			return st, fmt.Errorf("read task: generation %q", g)
		}
		st.Generation = uint8(n)
	}
	if o, ok := text(v, 2); ok {
		n, err := strconv.ParseInt(o, 10, 64)
		if err != nil {
			return st, fmt.Errorf("read task: offset %q", o)
		}
		st.Offset = n
	}
	status, _ := text(v, 1)
	st.Status = task.Status(status)
	st.RedriveJob, _ = text(v, 3)
	return st, nil
}

var errForeignReply = errors.New("reply is about another task")

// terminalOf decodes the terminal in field i; nil if there is none. It checks
// that the reply is about the task asked for: swapped replies on one
// connection have leaked data between tenants elsewhere.
func terminalOf(id task.ID, v []any, i int) (*terminal.Terminal, error) {
	raw, ok := text(v, i)
	if !ok || raw == "" {
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
