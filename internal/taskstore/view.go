package taskstore

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// Found is what the projection says of one task.
type Found struct {
	View     api.Task // status pending if nothing is known
	State    terminal.State
	Known    bool               // Redis has heard of the task
	Expired  bool               // the task has ended, and its result is past its time to live
	CaughtUp bool               // the task's partition holds all that the log held when it was built
	Terminal *terminal.Terminal // the winner of the current generation; nil while it is open
}

// viewFields are all the fields of a task's hash; the first four are a state's.
func viewFields() []string {
	return []string{
		fieldGeneration, fieldStatus, fieldOffset, fieldJob,
		fieldHint, fieldHintGen, fieldAttempt, fieldModel, fieldClass, fieldLabels, fieldCreated,
	}
}

// Get reads one task and how far its partition is applied, in one round trip.
func (s *Store) Get(ctx context.Context, id task.ID) (Found, error) {
	found, err := s.GetMany(ctx, []task.ID{id})
	if err != nil {
		return Found{}, err
	}
	return found[0], nil
}

// GetMany is Get for several tasks, in the order asked.
func (s *Store) GetMany(ctx context.Context, ids []task.ID) ([]Found, error) {
	positions := s.Reads()
	readings, err := s.read(ctx, ids, viewFields(), func(pipe redis.Pipeliner, partition int32) {
		positions.Ask(ctx, pipe, partition)
	})
	if err != nil {
		return nil, err
	}
	out := make([]Found, len(ids))
	for i, id := range ids {
		at, err := positions.Of(s.Partition(id))
		if err != nil {
			return nil, err
		}
		out[i] = foundOf(id, readings[i])
		out[i].CaughtUp = at.CaughtUp()
	}
	return out, nil
}

// foundOf turns a reading of viewFields into what callers see. A task that has
// ended is shown as its terminal tells it and no hint adds to that: a stream
// shows no more either, and after a rebuild there are no hints.
func foundOf(id task.ID, r reading) Found {
	f := Found{State: r.state, Known: known(r.fields), Terminal: r.terminal, Expired: r.expired}
	f.View = api.Task{TaskID: id, Status: task.Pending, Generation: r.state.Generation, Attempts: []task.Attempt{}}
	switch {
	case f.Terminal != nil:
		f.View = api.OfTerminal(f.Terminal, r.state.Generation)
		return f
	case f.Expired:
		f.View.Status = r.state.Status
	case f.Known:
		f.View.Status = openStatus(r.state, r.fields)
	}
	addHint(&f.View, r.fields)
	return f
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
	hint, _ := redisclient.Text(v, 4)
	generation, _ := redisclient.Text(v, 5)
	if g, err := strconv.Atoi(generation); err == nil && hint != "" && g >= int(st.Generation) {
		return task.Status(hint)
	}
	return task.Queued
}

// addHint fills in what is known besides the state.
func addHint(view *api.Task, v []any) {
	if model, ok := redisclient.Text(v, 7); ok && view.Model == "" {
		view.Model = model
	}
	if class, ok := redisclient.Text(v, 8); ok && view.Class == "" {
		view.Class = task.Class(class)
	}
	if labels, ok := redisclient.Text(v, 9); ok && view.Labels == nil {
		_ = json.Unmarshal([]byte(labels), &view.Labels) // a hint: unreadable is as good as lost
	}
	if created, ok := redisclient.Text(v, 10); ok && view.CreatedAt == nil {
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
	attempt, _ := redisclient.Text(v, 6)
	if n, err := strconv.Atoi(attempt); err == nil && n > 0 {
		view.Attempts = []task.Attempt{{N: n}}
	}
}
