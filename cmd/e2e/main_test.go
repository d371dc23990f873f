//go:build e2e

// Package e2e_test runs the whole pipeline as it runs in production: real
// processes, a real Kafka and a real Redis, killed, drained and flushed while
// they work. PENSTOCK_TEST_KAFKA and PENSTOCK_TEST_REDIS name the servers; the
// tests flush that Redis. They share the topics and so run one after another.
package e2e_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
)

// env is what the tests run against. Written by TestMain only.
var env struct {
	kafka []string
	redis string
	bin   string
}

func TestMain(m *testing.M) { os.Exit(setUp(m)) }

func setUp(m *testing.M) int {
	if list := os.Getenv("PENSTOCK_TEST_KAFKA"); list != "" {
		env.kafka = strings.Split(list, ",")
	}
	env.redis = os.Getenv("PENSTOCK_TEST_REDIS")
	dir, err := os.MkdirTemp("", "penstock-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	env.bin = dir
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if err := system.Build(ctx, dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// params are those of a small system. The logs of a failed test stay.
func params(t *testing.T) system.Params {
	t.Helper()
	if len(env.kafka) == 0 || env.redis == "" {
		t.Skip("PENSTOCK_TEST_KAFKA and PENSTOCK_TEST_REDIS are not set")
	}
	dir, err := os.MkdirTemp("", "penstock-e2e-logs-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("logs of the processes:", dir)
			return
		}
		_ = os.RemoveAll(dir)
	})
	return system.Params{Bin: env.bin, Dir: dir, Kafka: env.kafka, Redis: env.redis}
}

func start(t *testing.T, p system.Params) *system.System {
	t.Helper()
	s, err := system.Start(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// prompt is a task that costs the simulator next to nothing.
func prompt(text string) api.SubmitRequest {
	return api.SubmitRequest{
		Model: "sim-chat", Payload: task.Payload{Text: text}, Params: task.Params{"max_tokens": []byte("8")},
	}
}

func submitAndSucceed(t *testing.T, s *system.System, text string) api.Task {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	accepted, err := s.Client().Submit(ctx, prompt(text), "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Client().Wait(ctx, accepted.TaskID)
	if err != nil {
		t.Fatal(err)
	}
	if got.Status != task.Succeeded || got.Output == nil || got.Output.Text == "" {
		t.Fatalf("task %s is %s, output %v, error %v", got.TaskID, got.Status, got.Output, got.Error)
	}
	return got
}

// submitMany submits n tasks in batches and returns their ids.
func submitMany(t *testing.T, s *system.System, n int, body func(i int) api.SubmitRequest) []task.ID {
	t.Helper()
	var ids []task.ID
	for len(ids) < n {
		var part []api.SubmitRequest
		for i := len(ids); i < min(n, len(ids)+500); i++ {
			part = append(part, body(i))
		}
		res, err := s.Client().SubmitBatch(t.Context(), part)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range res.Items {
			if item.Accepted == nil {
				t.Fatalf("task %d was refused: %d %+v", len(ids)+item.Index, item.Code, item.Error)
			}
			ids = append(ids, item.Accepted.TaskID)
		}
	}
	return ids
}

// eventually polls a condition until it holds.
func eventually(t *testing.T, within time.Duration, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not within %s: %s", within, what)
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}
