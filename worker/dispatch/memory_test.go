package dispatch_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/worker/attempt"
	"github.com/penstock/penstock/worker/backend"
)

// memory is an attempt.Memory that takes its time, or is away.
type memory struct {
	takes time.Duration
	away  atomic.Bool
	lane  atomic.Pointer[string]
}

func (m *memory) Recall(_ context.Context, _ *task.Task, own json.RawMessage, lane string) (json.RawMessage, error) {
	m.lane.Store(&lane)
	time.Sleep(m.takes)
	if m.away.Load() {
		return nil, &fault.Error{Code: fault.Unavailable, Class: fault.ClassSystem}
	}
	return own, nil
}

// with gives the world's runner a memory.
func (m *memory) with(w *world) {
	w.params.Runner = attempt.NewRunner(attempt.Params{
		Store: w.redis, Log: w.redis, Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), NowFunc: w.BrokerNow,
		Claims: claimcheck.New(w.blobs, claimcheck.Params{}), Memory: m,
	})
}

func remembers(t *task.Task, _ *task.Progress) {
	t.SessionID, t.OrderingKey, t.Memory = "s-1", "session.s-1", true
	t.Payload = task.Payload{Messages: json.RawMessage(`[{"role":"user"}]`)}
}

func TestNobodyWaitsForAnothersMemory(t *testing.T) {
	m := &memory{takes: time.Second}
	var ends []string
	inWorld(t, nil, func(w *world) {
		began := time.Now()
		w.backend.Do = func(ctx context.Context, items []backend.Item) []backend.Outcome {
			for _, it := range items {
				ends = append(ends, time.Since(began).Truncate(500*time.Millisecond).String())
				if it.Task.Memory && len(items) > 1 {
					t.Errorf("a task with memory runs with %d others", len(items)-1)
				}
			}
			return succeed(ctx, items)
		}
		w.submit(nil)
		w.submit(remembers)
		w.submit(nil)
		w.sleep(5 * time.Second)
		if diff := cmp.Diff([]string{"0s", "0s", "1s"}, ends); diff != "" {
			t.Error(diff)
		}
		if lane := m.lane.Load(); lane == nil || *lane != topic.Tasks("default", task.Standard) {
			t.Error("it was not told its lane")
		}
	}, m.with)
}

func TestATaskWaitsForItsMemoryAtNoCostAndItsSessionBehindIt(t *testing.T) {
	m := &memory{}
	run, runs := counted(succeed)
	inWorld(t, run, func(w *world) {
		m.away.Store(true)
		first, _ := w.submit(remembers)
		second, _ := w.submit(remembers)
		w.sleep(50 * time.Minute)
		if runs.Load() != 0 || len(w.wrote()) != 0 {
			t.Fatalf("after %d runs: %v", runs.Load(), w.wrote())
		}
		m.away.Store(false)
		w.sleep(15 * time.Second)
		for _, tk := range []*task.Task{first, second} {
			if end := w.ends[tk.ID]; len(end) != 1 || end[0].Status != task.Succeeded || len(end[0].Attempts) != 1 {
				t.Errorf("terminals %+v, want a success at the first attempt", end)
			}
		}
	}, m.with)
}
