// Package attempttest has stand-ins for what a Runner works with.
package attempttest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/worker/backend"
)

// Redis is a Store and a Log in memory. Hook functions may be set before use.
type Redis struct {
	mu     sync.Mutex
	states map[task.ID]terminal.State
	events map[task.ID][]event.Event
	held   map[task.ID]event.Fence
	grants map[task.ID]eventlog.Grant
	beats  map[task.ID]int
	hints  []taskstore.Hint
	writes int
	err    error
	hang   bool
	insist bool
}

// NewRedis returns an empty one.
func NewRedis() *Redis {
	return &Redis{
		states: map[task.ID]terminal.State{}, events: map[task.ID][]event.Event{},
		held: map[task.ID]event.Fence{}, grants: map[task.ID]eventlog.Grant{}, beats: map[task.ID]int{},
	}
}

// SetState says what States answers for a task.
func (r *Redis) SetState(id task.ID, s terminal.State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.states[id] = s
}

// Fail makes every call return err; nil ends that.
func (r *Redis) Fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

// Hang makes calls wait for the end of their context.
func (r *Redis) Hang(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hang = on
}

// Truncate loses all but the first n events of a task.
func (r *Redis) Truncate(id task.ID, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events[id] = r.events[id][:min(n, len(r.events[id]))]
}

// Flush loses everything.
func (r *Redis) Flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.events)
	clear(r.states)
}

// Events returns what was written of a task.
func (r *Redis) Events(id task.ID) []event.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]event.Event(nil), r.events[id]...)
}

// Text is all deltas of a task under its highest fence.
func (r *Redis) Text(id task.ID) string {
	var b strings.Builder
	for _, e := range r.Events(id) {
		if e.Type == event.Started || e.Type == event.Restart {
			b.Reset()
		}
		b.WriteString(e.Text)
	}
	return b.String()
}

// Writes is how many round trips appended events.
func (r *Redis) Writes() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.writes
}

// Hints returns every hint.
func (r *Redis) Hints() []taskstore.Hint {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]taskstore.Hint(nil), r.hints...)
}

func (r *Redis) enter(ctx context.Context) error {
	r.mu.Lock()
	hang, err := r.hang, r.err
	r.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

// States implements attempt.Store.
func (r *Redis) States(ctx context.Context, ids []task.ID) ([]terminal.State, error) {
	if err := r.enter(ctx); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]terminal.State, len(ids))
	for i, id := range ids {
		out[i] = r.states[id]
	}
	return out, nil
}

// Hint implements attempt.Store.
func (r *Redis) Hint(ctx context.Context, hints []taskstore.Hint) error {
	if err := r.enter(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hints = append(r.hints, hints...)
	return nil
}

// ClaimAll implements attempt.Log.
func (r *Redis) ClaimAll(ctx context.Context, claims []eventlog.Claim) []eventlog.Grant {
	grants := make([]eventlog.Grant, len(claims))
	err := r.enter(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, c := range claims {
		if grants[i] = (eventlog.Grant{Losses: c.Losses, Err: err}); err != nil {
			continue
		}
		if g, ok := r.grants[c.ID]; ok {
			grants[i] = g
		}
		if errors.Is(grants[i].Err, eventlog.ErrBarred) && c.Losses >= grants[i].Losses {
			grants[i].Err = nil
		}
		if r.insist && !c.Insist {
			grants[i].Err = eventlog.ErrHeld
		}
		if g := &grants[i]; g.Err == nil {
			g.Err = r.begin(c)
			r.held[c.ID] = c.Fence
		}
	}
	return grants
}

// Grant makes claims of a task be answered so; an answer without an error still
// writes the claim's event. ErrBarred holds only until the claim tells of the
// losses.
func (r *Redis) Grant(id task.ID, g eventlog.Grant) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.grants[id] = g
}

// HoldUnlessInsisted answers every claim that does not insist by ErrHeld.
func (r *Redis) HoldUnlessInsisted(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.insist = on
}

// Beat implements attempt.Log.
func (r *Redis) Beat(ctx context.Context, holds []eventlog.Hold) error {
	err := r.enter(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range holds {
		if err == nil {
			r.beats[h.ID]++
		}
	}
	return err
}

// Release implements attempt.Log.
func (r *Redis) Release(ctx context.Context, holds []eventlog.Hold) error {
	err := r.enter(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range holds {
		if err == nil && r.held[h.ID] == h.Fence {
			delete(r.held, h.ID)
		}
	}
	return err
}

// Beats is how often a task's claim was kept alive.
func (r *Redis) Beats(id task.ID) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.beats[id]
}

// Held reports whether a task's claim has not been released.
func (r *Redis) Held(id task.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.held[id]
	return ok
}

// Append implements attempt.Log.
func (r *Redis) Append(ctx context.Context, batch []eventlog.Append) []error {
	errs := make([]error, len(batch))
	err := r.enter(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writes++
	for i, a := range batch {
		if errs[i] = err; err != nil {
			continue
		}
		errs[i] = r.add(a)
	}
	return errs
}

// begin writes a claim's event, unless it is there already.
func (r *Redis) begin(c eventlog.Claim) error {
	have := r.events[c.ID]
	switch {
	case slices.ContainsFunc(have, func(e event.Event) bool { return e.ID == c.Event.ID }):
		return nil
	case len(have) > 0 && !have[len(have)-1].ID.Less(c.Event.ID):
		return eventlog.ErrFenced
	}
	r.events[c.ID] = append(have, c.Event)
	return nil
}

// add writes events above the top, as the event log does.
func (r *Redis) add(a eventlog.Append) error {
	first := a.Events[0]
	have := r.events[a.ID]
	if len(have) == 0 || have[len(have)-1].ID.Fence < first.ID.Fence {
		return eventlog.ErrVanished
	}
	top := have[len(have)-1].ID
	if top.Fence > first.ID.Fence {
		return eventlog.ErrFenced
	}
	if first.Type != event.Gap && top.Seq+1 < first.ID.Seq {
		return eventlog.ErrVanished
	}
	for _, e := range a.Events {
		if top.Less(e.ID) {
			r.events[a.ID] = append(r.events[a.ID], e)
		}
	}
	return nil
}

// Backend runs a function; Max is what Join answers (1 if zero).
type Backend struct {
	Max int
	Do  func(ctx context.Context, items []backend.Item) []backend.Outcome
}

// Join implements backend.Backend.
func (b *Backend) Join(t *task.Task) (string, int) { return t.Model, max(1, b.Max) }

// Run implements backend.Backend.
func (b *Backend) Run(ctx context.Context, items []backend.Item) []backend.Outcome {
	return b.Do(ctx, items)
}

// OK is a success that says text.
func OK(text string) backend.Outcome {
	return backend.Outcome{Output: &task.Output{Text: text, FinishReason: "stop"}}
}
