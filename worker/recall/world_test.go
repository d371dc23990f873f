package recall_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/claimcheck/claimchecktest"
	"github.com/penstock/penstock/internal/convstore"
	"github.com/penstock/penstock/internal/projection"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/conversation"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/worker/recall"
)

const (
	lane  = "penstock.tasks.default.standard"
	other = "penstock.tasks.default.bulk"
	third = "penstock.tasks.default.interactive"
	lag   = 20 * time.Millisecond // from a log to its projection
)

// made is when settings were.
var made = time.Date(2026, 3, 14, 8, 0, 0, 0, time.UTC)

var errDown = errors.New("redis is away")

// world is the log of a session and of its tasks' ends, and projections that
// follow them after a lag.
type world struct {
	minter *task.Minter
	blobs  *claimchecktest.Store

	mu         sync.Mutex
	turns      []written
	ends       map[task.ID]end
	records    []*conversation.Record
	settings   *conversation.Settings
	kept       time.Time // what their latest record lasts until
	down       error     // of Redis
	kafka      error
	rebuilding bool  // of the session
	behind     bool  // the results' projection is
	written    int64 // results that it does not hold
}

type written struct {
	convstore.Turn
	visible time.Time
}

type end struct {
	terminal *terminal.Terminal // nil: past its time to live
	state    terminal.State
	visible  time.Time
}

// inWorld runs a test in a bubble.
func inWorld(t *testing.T, f func(t *testing.T, w *world, r *recall.Recaller)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		minter, err := task.NewMinter(task.Secret{Key: []byte(strings.Repeat("k", 32))})
		if err != nil {
			t.Fatal(err)
		}
		w := &world{minter: minter, blobs: claimchecktest.New(), ends: map[task.ID]end{}}
		f(t, w, recall.New(recall.Params{
			Sessions: w, Results: w, Publisher: w, Claims: claimcheck.New(w.blobs, claimcheck.Params{}),
			Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
		}))
	})
}

func (w *world) Turned(_ context.Context, tenant, id string, of task.ID) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	turns := w.visible(tenant, id)
	return slices.ContainsFunc(turns, func(t convstore.Turn) bool { return t.TaskID == of }), w.down
}

// visible is what Redis has of a session. The lock is held.
func (w *world) visible(tenant, id string) (out []convstore.Turn) {
	if tenant != "acme" || id != "s-1" || w.rebuilding {
		return nil
	}
	for _, t := range w.turns {
		if !t.visible.After(time.Now()) {
			out = append(out, t.Turn)
		}
	}
	return out
}

func (w *world) Session(_ context.Context, tenant, id string, newest int) (*convstore.Session, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	turns := w.visible(tenant, id)
	switch {
	case w.down != nil:
		return nil, w.down
	case w.rebuilding:
		return nil, convstore.ErrRebuilding
	case turns == nil && w.settings == nil:
		return nil, convstore.ErrUnknown
	}
	return &convstore.Session{Settings: w.settings, Made: made, Kept: w.kept, Total: len(turns), Turns: turns[max(0, len(turns)-newest):]}, nil
}

func (w *world) Conversation(_ context.Context, r *conversation.Record) (tasktopic.Ack, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.kafka != nil {
		return tasktopic.Ack{}, w.kafka
	}
	w.records = append(w.records, r)
	if r.Step == conversation.Kept {
		w.kept = r.Until
		return tasktopic.Ack{}, nil
	}
	for _, t := range w.turns {
		if t.TaskID == r.TaskID {
			return tasktopic.Ack{}, nil // the first counts
		}
	}
	turn := convstore.Turn{TaskID: r.TaskID, Lane: r.Lane, At: r.At, Content: r.Content, ContentRef: r.ContentRef}
	w.turns = append(w.turns, written{turn, time.Now().Add(lag)})
	return tasktopic.Ack{}, nil
}

func (w *world) BrokerNow() time.Time { return time.Now() }

func (w *world) ResultsEnd(context.Context, task.ID) (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return 9 + w.written, w.kafka
}

func (w *world) Params() taskstore.Params { return taskstore.Params{TTL: time.Hour} }

func (w *world) StatesAt(_ context.Context, ids []task.ID) ([]taskstore.Placed, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]taskstore.Placed, len(ids))
	for i, id := range ids {
		out[i].At = projection.Position{Next: 9, Target: 9, Known: true}
		if w.behind {
			out[i].At.Next = 8
		}
		if e := w.ends[id]; !e.visible.After(time.Now()) && !w.behind {
			out[i].State = e.state
		}
	}
	return out, w.down
}

func (w *world) Terminals(_ context.Context, ids []task.ID) ([]*terminal.Terminal, []terminal.State, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ends, states := make([]*terminal.Terminal, len(ids)), make([]terminal.State, len(ids))
	for i, id := range ids {
		ends[i], states[i] = w.ends[id].terminal, w.ends[id].state
	}
	return ends, states, w.down
}

// task is one that says something and remembers.
func (w *world) task(said string) *task.Task {
	return &task.Task{
		ID: w.minter.New("acme", time.Now()), Kind: task.Chat, Tenant: "acme", SessionID: "s-1", Memory: true,
		Payload: task.Payload{Messages: asked(said)},
	}
}

func asked(said string) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`[{"role":"user","content":%q}]`, said))
}

// end ends a task; its projection follows.
func (w *world) end(tk *task.Task, status task.Status, said string) {
	w.put(tk.ID, terminal.State{Status: status, Offset: 1}, &terminal.Terminal{
		TaskID: tk.ID, Status: status, Output: &task.Output{Text: said}, Usage: &task.Usage{CompletionTokens: 1},
	})
}

func (w *world) put(id task.ID, s terminal.State, t *terminal.Terminal) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ends[id] = end{t, s, time.Now().Add(lag)}
}

// set changes the world while others look at it.
func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// recalled is what a task is given, each message as role and text.
func recalled(t *testing.T, r *recall.Recaller, tk *task.Task) []string {
	t.Helper()
	return recalledIn(t, r, tk, lane)
}

func recalledIn(t *testing.T, r *recall.Recaller, tk *task.Task, lane string) []string {
	t.Helper()
	raw, err := r.Recall(t.Context(), tk, tk.Payload.Messages, lane)
	if err != nil {
		t.Fatal(err)
	}
	var messages []struct{ Role, Content string }
	if err := json.Unmarshal(raw, &messages); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	var out []string
	for _, m := range messages {
		out = append(out, m.Role+": "+m.Content)
	}
	return out
}

// waits checks that a task is told to wait, at nobody's cost.
func waits(t *testing.T, r *recall.Recaller, tk *task.Task) {
	t.Helper()
	_, err := r.Recall(t.Context(), tk, tk.Payload.Messages, lane)
	if fault.ClassOf(err) != fault.ClassSystem {
		t.Errorf("got %v; want a fault of the system", err)
	}
}
