package lookup_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/lookup"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

var errAway = errors.New("redis is away")

// projection is a store that holds what it is given.
type projection struct {
	found  taskstore.Found
	briefs map[task.ID]taskstore.Brief
	err    error
}

func (p *projection) Get(context.Context, task.ID) (taskstore.Found, error) { return p.found, p.err }

func (p *projection) Briefs(_ context.Context, ids []task.ID) ([]taskstore.Brief, error) {
	out := make([]taskstore.Brief, len(ids))
	for i, id := range ids {
		out[i] = p.briefs[id]
	}
	return out, p.err
}

func (p *projection) Params() taskstore.Params {
	return taskstore.Params{TTL: time.Hour, MaxAge: time.Hour}
}

// covers is a tail that brings the ends of some tasks.
type covers map[task.ID]bool

func (c covers) Covers(id task.ID) bool { return c[id] }

// whole is a claim check without a store.
type whole struct{ err error }

func (w whole) Task(_ context.Context, v api.Task) (api.Task, func(), error) {
	return v, func() {}, w.err
}

// never is a task that does not end.
type never struct{}

func (never) Wait(ctx context.Context, _ task.ID) (*terminal.Terminal, uint8, error) {
	<-ctx.Done()
	return nil, 0, ctx.Err()
}

func mint(t *testing.T) task.ID {
	t.Helper()
	m, err := task.NewMinter(task.Secret{Key: []byte("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	return m.New("acme", time.Now())
}

func TestOnlyTasksWhoseEndWasNotSeenAreFollowed(t *testing.T) {
	open, ended, seen := mint(t), mint(t), mint(t)
	done := taskstore.Brief{State: terminal.State{Status: task.Succeeded}, Known: true, Ended: true}
	p := &projection{briefs: map[task.ID]taskstore.Brief{open: {Known: true}, ended: done, seen: done}}
	watches := []follow.Watch{{ID: open}, {ID: ended}, {ID: seen, After: event.TerminalID(0)}}
	got, err := lookup.Open(t.Context(), p, covers{}, watches)
	if diff := cmp.Diff(watches[:2], got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	p.briefs[seen] = taskstore.Brief{State: terminal.State{Generation: 1}, Known: true}
	if got, err := lookup.Open(t.Context(), p, covers{}, watches[2:]); len(got) != 1 || err != nil {
		t.Errorf("a task that was redriven after its end was seen is not followed: %v, %v", got, err)
	}
}

func TestWhatCannotBeReadIsFollowedOnlyIfTheLogBringsItsEnd(t *testing.T) {
	id := mint(t)
	p := &projection{err: errAway}
	if got, err := lookup.Open(t.Context(), p, covers{id: true}, []follow.Watch{{ID: id}}); len(got) != 1 || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	_, err := lookup.Open(t.Context(), p, covers{}, []follow.Watch{{ID: id}})
	if fault.CodeOf(err) != fault.Unavailable || fault.RetryAfterOf(err) == 0 || !errors.Is(err, errAway) {
		t.Errorf("%v", err)
	}
}

func TestARefusalSaysWhatCanBeDone(t *testing.T) {
	id := mint(t)
	for name, tc := range map[string]struct {
		p       projection
		results error
		want    fault.Code
	}{
		"redis is away":              {projection{err: errAway}, nil, fault.Unavailable},
		"its partition is restored":  {projection{}, nil, fault.Unavailable},
		"its result has expired":     {projection{found: taskstore.Found{Known: true, Expired: true}}, nil, fault.Gone},
		"its output cannot be read":  {projection{found: taskstore.Found{Known: true}}, errAway, fault.Unavailable},
		"it is queued, for all that": {projection{found: taskstore.Found{CaughtUp: true}}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := lookup.NewReader(&tc.p, never{}, whole{tc.results}).Task(t.Context(), id, 0, t.Context())
			if tc.want == "" && err == nil {
				return
			}
			if tc.want == "" || fault.CodeOf(err) != tc.want {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

func TestAWaitEndsWithItsTimeAndWithADrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &projection{found: taskstore.Found{Known: true, View: api.Task{Status: task.Running}}}
		r := lookup.NewReader(p, never{}, whole{})
		drain, stop := context.WithCancel(t.Context())
		defer stop()
		id, began := mint(t), time.Now()
		for _, after := range []time.Duration{30 * time.Second, 5 * time.Second} {
			if after < 30*time.Second {
				time.AfterFunc(after, stop)
			}
			view, _, err := r.Task(t.Context(), id, 30*time.Second, drain)
			if took := time.Since(began); view.Status != task.Running || err != nil || took != after {
				t.Errorf("%+v, %v after %s", view, err, took)
			}
			began = time.Now()
		}
	})
}
