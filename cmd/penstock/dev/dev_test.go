package dev_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/cmd/penstock/dev"
	"github.com/penstock/penstock/internal/devstack"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// run runs a stack until the test ends, or until stop is called.
func run(t *testing.T, cfg dev.Config) (cl *client.Client, s *dev.Stack, stop func()) {
	t.Helper()
	cfg.Listen = "127.0.0.1:0"
	s, err := dev.Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1) // one result
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
	t.Cleanup(stop)
	cl, err = client.New(client.Config{API: s.URL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl, s, stop
}

func text(s string) api.SubmitRequest {
	return api.SubmitRequest{Payload: task.Payload{Text: s}}
}

func succeed(t *testing.T, cl *client.Client, r api.SubmitRequest) api.Task {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	got, done, err := cl.SubmitAndWait(ctx, r, "", 20*time.Second)
	if err != nil || !done || got.Status != task.Succeeded || got.Output == nil {
		t.Fatalf("done %v, status %s, error %v", done, got.Status, err)
	}
	return got
}

func TestEverythingOnOnePort(t *testing.T) {
	cl, s, _ := run(t, dev.DefaultConfig())
	t.Run("a task without a model goes to the first chat model", func(t *testing.T) {
		if got := succeed(t, cl, text("hello")); got.Model != "sim-chat" {
			t.Errorf("model %q", got.Model)
		}
	})
	t.Run("embeddings are made", func(t *testing.T) {
		r := text("hello")
		r.Model = "sim-embed"
		if got := succeed(t, cl, r); got.Output.Embeddings == nil {
			t.Errorf("output %+v", got.Output)
		}
	})
	t.Run("a chat is streamed", func(t *testing.T) {
		accepted, err := cl.Submit(t.Context(), api.SubmitRequest{
			Model: "sim-chat", Payload: task.Payload{Messages: []byte(`[{"role":"user","content":"hi"}]`)}, Stream: true,
		}, "")
		if err != nil {
			t.Fatal(err)
		}
		var pieces, whole string
		err = cl.Tail(t.Context(), accepted.TaskID, event.ID{}, func(e event.Event) error {
			if e.Type == event.Delta {
				pieces += e.Text
			}
			if e.Type == event.Succeeded {
				whole = e.Result.Output.Text
			}
			return nil
		})
		if err != nil || whole == "" || pieces != whole {
			t.Errorf("pieces %q, whole %q, %v", pieces, whole, err)
		}
	})
	for _, path := range []string{"/v1/models", "/v1/health", "/livez", "/readyz", "/metrics", "/docs", "/docs/rapidoc-min.js", "/openapi.json", "/asyncapi.json", "/schema/v1/task.schema.json", "/admin/v1/dead-letters", "/admin/v1/redrives"} {
		t.Run(path+" answers", func(t *testing.T) {
			res, err := http.Get(s.URL() + path)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != http.StatusOK {
				raw, _ := io.ReadAll(res.Body)
				t.Errorf("%s: %.200s", res.Status, raw)
			}
		})
	}
	t.Run("the banner names the API and one command that works", func(t *testing.T) {
		var out strings.Builder
		s.Banner(&out)
		for _, want := range []string{"NOT FOR PRODUCTION", s.URL() + "/docs", "curl -s " + s.URL() + "/v1/inference"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("the banner lacks %q:\n%s", want, out.String())
			}
		}
	})
}

func TestADataDirectory(t *testing.T) {
	cfg := dev.DefaultConfig()
	cfg.DataDir = t.TempDir()
	cl, _, stop := run(t, cfg)
	first := succeed(t, cl, text("remember me"))
	t.Run("is refused to a second process", func(t *testing.T) {
		second := cfg
		second.Listen = "127.0.0.1:0"
		if _, err := dev.Open(t.Context(), second, slog.New(slog.DiscardHandler)); !errors.Is(err, devstack.ErrInUse) {
			t.Errorf("got %v, want ErrInUse", err)
		}
	})
	stop()
	t.Run("keeps results across a restart, although the store forgot them", func(t *testing.T) {
		cl, _, _ := run(t, cfg)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		got, err := cl.Wait(ctx, first.TaskID)
		if err != nil || got.Status != task.Succeeded || got.Output == nil || got.Output.Text != first.Output.Text {
			t.Errorf("%s, %v, %v", got.Status, got.Output, err)
		}
		succeed(t, cl, text("and go on"))
	})
}

func TestARealEngineBringsItsModels(t *testing.T) {
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/v1/models" {
			_ = json.NewEncoder(w).Encode(map[string]any{"data": []map[string]string{{"id": "org/model-a"}, {"id": "b"}}})
			return
		}
		_, _ = io.WriteString(w, `{"choices":[{"index":0,"text":"engine says hi","finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":3,"total_tokens":4}}`)
	}))
	defer engine.Close()
	cfg := dev.DefaultConfig()
	cfg.Backend = engine.URL
	cl, s, _ := run(t, cfg)
	list, err := cl.Models(t.Context())
	if err != nil || len(list.Data) != 2 || list.Data[0].ID != "org/model-a" {
		t.Fatalf("models %+v, %v", list, err)
	}
	if got := succeed(t, cl, text("hello")); got.Model != "org/model-a" || got.Output.Text != "engine says hi" {
		t.Errorf("model %q, output %+v", got.Model, got.Output)
	}
	if s.SimulatorURL() != "" {
		t.Error("a simulated engine runs beside the real one")
	}
}

func TestBeyondLoopback(t *testing.T) {
	cfg := dev.DefaultConfig()
	cfg.Listen = "0.0.0.0:0"
	_, err := dev.Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "auth_keys_file") {
		t.Errorf("without keys: %v", err)
	}
}

func TestLargePayloadsLieBesideTheLog(t *testing.T) {
	large := text(strings.Repeat("x", 300<<10))
	blobs := func(dir string) int {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(dir, "20*", "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	t.Run("in the data directory", func(t *testing.T) {
		cfg := dev.DefaultConfig()
		cfg.DataDir = t.TempDir()
		cl, _, stop := run(t, cfg)
		succeed(t, cl, large)
		stop()
		if n := blobs(filepath.Join(cfg.DataDir, "blobs")); n != 1 {
			t.Errorf("%d blobs are left, want 1", n)
		}
	})
	t.Run("or as long as the process", func(t *testing.T) {
		t.Setenv("TMPDIR", t.TempDir())
		dir := filepath.Join(os.TempDir(), "penstock-blobs-*")
		cl, _, stop := run(t, dev.DefaultConfig())
		succeed(t, cl, large)
		if n := blobs(dir); n != 1 {
			t.Errorf("%d blobs while it runs, want 1", n)
		}
		stop()
		if left, err := filepath.Glob(dir); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
}
