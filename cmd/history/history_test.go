package history_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/cmd/history"
	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/cmd/penstock/dev"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
)

func open(t *testing.T) *client.Client {
	t.Helper()
	cfg := dev.DefaultConfig()
	cfg.Listen, cfg.RetryBase, cfg.RetryMax = "127.0.0.1:0", time.Millisecond, 2*time.Millisecond
	s, err := dev.Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1) // one result
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	fault := `{"match":"fragile","ratio":0.85,"status":500}`
	res, err := http.Post(s.SimulatorURL()+"/sim/faults", "application/json", strings.NewReader(fault))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode >= 300 {
		t.Fatalf("fault switch answers %s", res.Status)
	}
	cl, err := client.New(client.Config{API: s.URL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// requests are tasks that end soon, late, or by dying.
func requests(n int) []api.SubmitRequest {
	out := make([]api.SubmitRequest, n)
	for i := range out {
		text := fmt.Sprintf("prompt %d", i)
		if i%3 == 0 {
			text += " fragile"
		}
		out[i] = api.SubmitRequest{Model: "sim-chat", Payload: task.Payload{Text: text}, Stream: i%4 == 0}
	}
	return out
}

// traffic submits tasks that succeed until the returned function is called: a
// backend that fails nearly everything it is asked is paused, and then nothing
// dies.
func traffic(t *testing.T, cl *client.Client) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_, _ = cl.Submit(ctx, api.SubmitRequest{Model: "sim-chat", Payload: task.Payload{Text: "well"}}, "")
			case <-ctx.Done():
				return
			}
		}
	})
	return func() { cancel(); work.Wait() }
}

// dead returns tasks that have died once, and will nearly always do so again.
func dead(t *testing.T, cl *client.Client, n int) []task.ID {
	t.Helper()
	var ids []task.ID
	for range n {
		got, err := cl.Submit(t.Context(), api.SubmitRequest{Model: "sim-chat", Payload: task.Payload{Text: "fragile"}}, "")
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, got.TaskID)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return slices.DeleteFunc(ids, func(id task.ID) bool {
		got, err := cl.Wait(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		return got.Status != task.Dead
	})
}

func TestClientsSeeOneRegisterPerTask(t *testing.T) {
	cl := open(t)
	stop := traffic(t, cl)
	begun := dead(t, cl, 8)
	r := history.NewRecorder()
	ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second) // a slow machine makes a shorter history
	defer cancel()
	r.Drive(ctx, history.Params{
		Clients: []*client.Client{cl}, Requests: requests(24), Tasks: begun, PerTask: 3, Pause: 100 * time.Millisecond, Seed: 1,
		Enough: func(ends map[history.Kind]int) bool {
			return ends[history.Read] > 800 && ends[history.Cancel] > 4 && ends[history.Redrive] > 1
		},
	})
	stop()
	if err := r.Check(filepath.Join(t.ArtifactDir(), "history.html")); err != nil {
		t.Error(err)
	}
	if ends := r.Ends(); ends[history.Read] == 0 {
		t.Errorf("nobody saw an end: %v", ends)
	} else {
		t.Logf("calls that told an end: %v", ends)
	}
}
