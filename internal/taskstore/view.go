package taskstore

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// Found is what the projection says of one task.
type Found struct {
	View     api.Task // status pending if nothing is known
	State    terminal.State
	Known    bool               // Redis has heard of the task
	CaughtUp bool               // the task's partition holds all that the log held when it was built
	Terminal *terminal.Terminal // the winner of the current generation; nil while it is open
}

// viewFields are all the fields of a task's hash; the first four are a state's.
func viewFields() []string {
	return []string{
		fieldGeneration, fieldStatus, fieldOffset, fieldJob, fieldTerminal,
		fieldHint, fieldHintGen, fieldAttempt, fieldModel, fieldClass, fieldLabels, fieldCreated,
	}
}

// Get reads one task and how far its partition is applied, in one round trip.
func (s *Store) Get(ctx context.Context, id task.ID) (Found, error) {
	partition := s.Partition(id)
	pipe := s.rdb.Pipeline()
	hash := pipe.HMGet(ctx, rediskey.Task(partition, id), viewFields()...)
	position := s.projection(ctx, pipe, partition)
	if _, err := pipe.Exec(ctx); err != nil {
		return Found{}, fmt.Errorf("read task %s: %w", id, err)
	}
	projection, err := projectionOf(position)
	if err != nil {
		return Found{}, err
	}
	f, err := foundOf(id, hash.Val())
	f.CaughtUp = projection.CaughtUp()
	return f, err
}

// GetMany is Get for several tasks, in the order asked.
func (s *Store) GetMany(ctx context.Context, ids []task.ID) ([]Found, error) {
	positions := make(map[int32]*redis.SliceCmd)
	pipe := s.rdb.Pipeline()
	cmds := make([]*redis.SliceCmd, len(ids))
	for i, id := range ids {
		partition := s.Partition(id)
		cmds[i] = pipe.HMGet(ctx, rediskey.Task(partition, id), viewFields()...)
		if positions[partition] == nil {
			positions[partition] = s.projection(ctx, pipe, partition)
		}
	}
	if _, err := pipe.Exec(ctx); err != nil && len(ids) > 0 {
		return nil, fmt.Errorf("read tasks: %w", err)
	}
	out := make([]Found, len(ids))
	for i, id := range ids {
		projection, err := projectionOf(positions[s.Partition(id)])
		if err != nil {
			return nil, err
		}
		if out[i], err = foundOf(id, cmds[i].Val()); err != nil {
			return nil, err
		}
		out[i].CaughtUp = projection.CaughtUp()
	}
	return out, nil
}

// foundOf reads the fields of viewFields.
func foundOf(id task.ID, v []any) (Found, error) {
	st, err := stateOf(v)
	if err != nil {
		return Found{}, err
	}
	f := Found{State: st, Known: known(v)}
	if f.Terminal, err = terminalOf(id, v, 4); err != nil {
		return Found{}, err
	}
	f.View = api.Task{TaskID: id, Status: task.Pending, Generation: st.Generation, Attempts: []task.Attempt{}}
	if f.Terminal != nil {
		f.View = api.OfTerminal(f.Terminal, st.Generation)
	} else if f.Known {
		f.View.Status = openStatus(st, v)
	}
	addHint(&f.View, v)
	return f, nil
}

func known(v []any) bool {
	for _, field := range v {
		if field != nil {
			return true
		}
	}
	return false
}

// openStatus is the hint's status if it is about the open generation. A hint
// of a generation that the log has not opened here yet (a rebuild) counts too.
func openStatus(st terminal.State, v []any) task.Status {
	hint, _ := text(v, 5)
	generation, _ := text(v, 6)
	if g, err := strconv.Atoi(generation); err == nil && hint != "" && g >= int(st.Generation) {
		return task.Status(hint)
	}
	return task.Queued
}

// addHint fills what the terminal does not say, or what is there instead of one.
func addHint(view *api.Task, v []any) {
	if model, ok := text(v, 8); ok && view.Model == "" {
		view.Model = model
	}
	if class, ok := text(v, 9); ok && view.Class == "" {
		view.Class = task.Class(class)
	}
	if labels, ok := text(v, 10); ok && view.Labels == nil {
		_ = json.Unmarshal([]byte(labels), &view.Labels) // a hint: unreadable is as good as lost
	}
	if created, ok := text(v, 11); ok && view.CreatedAt == nil {
		if ms, err := strconv.ParseInt(created, 10, 64); err == nil && ms > 0 {
			at := time.UnixMilli(ms).UTC()
			view.CreatedAt = &at
		}
	}
	addAttempt(view, v)
}

// addAttempt shows the attempt that is running: its number is all we know.
func addAttempt(view *api.Task, v []any) {
	if view.Status != task.Running {
		return
	}
	attempt, _ := text(v, 7)
	if n, err := strconv.Atoi(attempt); err == nil && n > 0 {
		view.Attempts = []task.Attempt{{N: n}}
	}
}
