package dev_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/cmd/penstock/dev"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/worker/backend/simulated"
)

// post calls a route as an OpenAI client does; headers are name, value, ….
func post(ctx context.Context, t *testing.T, s *dev.Stack, path, body string, headers ...string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return http.DefaultClient.Do(req)
}

// executions is what the simulated engine began so far, by task.
func executions(t *testing.T, s *dev.Stack) simulated.Executions {
	t.Helper()
	res, err := http.Get(s.SimulatorURL() + "/sim/executions")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var out simulated.Executions
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

// processing is how many slots of the engine are taken, by its own metric.
func processing(t *testing.T, s *dev.Stack) string {
	t.Helper()
	res, err := http.Get(s.SimulatorURL() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(raw), "\nllamacpp:requests_processing ")
	n, _, _ := strings.Cut(rest, "\n")
	return n
}

// cancelled is how many tasks were.
func cancelled(t *testing.T, s *dev.Stack) int {
	t.Helper()
	res, err := http.Get(s.URL() + "/v1/tasks?status=cancelled")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var list struct{ Data api.TaskList }
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil {
		t.Fatal(err)
	}
	return len(list.Data.Tasks)
}

func within(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	end := time.NewTimer(limit)
	defer end.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-end.C:
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// TestOpenAICallsOverTheWholePipeline asks what only shows with a worker and an
// engine behind the routes.
func TestOpenAICallsOverTheWholePipeline(t *testing.T) {
	cfg := dev.DefaultConfig()
	cfg.RetryBase, cfg.RetryMax = 10*time.Millisecond, 20*time.Millisecond
	_, s, stop := run(t, cfg)
	warm, err := post(t.Context(), t, s, "/v1/completions", `{"model":"sim-chat","prompt":"warm up"}`)
	if err != nil || warm.StatusCode != http.StatusOK {
		t.Fatalf("%v %v", warm, err)
	}
	_ = warm.Body.Close()
	ask := func(text, more string) string {
		return `{"model":"sim-chat","messages":[{"role":"user","content":"` + text + `"}]` + more + `}`
	}
	t.Run("a client that hangs up frees the engine's slot and cancels its task", func(t *testing.T) {
		switchFault(t, s, http.MethodPost, `{"match":"hangs","action":"hang"}`) // an unstreamed answer takes this engine no time
		defer switchFault(t, s, http.MethodDelete, "")
		for i, body := range []string{ask("long", `,"stream":true,"max_tokens":3000`), ask("hangs", "")} {
			before := executions(t, s).Total
			ctx, hangUp := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				if res, err := post(ctx, t, s, "/v1/chat/completions", body); err == nil {
					_, _ = io.Copy(io.Discard, res.Body) // until it breaks
					_ = res.Body.Close()
				}
			}()
			within(t, 10*time.Second, "the engine works", func() bool { return executions(t, s).Total > before })
			hangUp()
			<-done
			within(t, 10*time.Second, "the task is cancelled", func() bool { return cancelled(t, s) == i+1 })
			within(t, 2*time.Second, "the slot is free", func() bool { return processing(t, s) == "0" })
		}
	})
	t.Run("a retry of a call that timed out runs nothing twice", func(t *testing.T) {
		switchFault(t, s, http.MethodPost, `{"match":"slow","action":"slow","delay":"1s"}`)
		defer switchFault(t, s, http.MethodDelete, "")
		body := ask("slow", `,"max_tokens":2`)
		ctx, giveUp := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer giveUp()
		if res, err := post(ctx, t, s, "/v1/chat/completions", body, "X-Stainless-Retry-Count", "0"); err == nil {
			_ = res.Body.Close()
			t.Fatal("the first call was answered in time")
		}
		res, err := post(t.Context(), t, s, "/v1/chat/completions", body, "X-Stainless-Retry-Count", "1")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if n := executions(t, s).Counts[res.Header.Get("X-Task-Id")]; res.StatusCode != http.StatusOK || n != 1 {
			t.Errorf("%s; the task ran %d times", res.Status, n)
		}
	})
	t.Run("an attempt that breaks before its first token is not noticed", func(t *testing.T) {
		switchFault(t, s, http.MethodPost, `{"match":"early","action":"cut","after":0,"count":1}`)
		defer switchFault(t, s, http.MethodDelete, "")
		if last := lastEvent(t, s, ask("early", `,"stream":true,"max_tokens":3`)); last != "[DONE]" {
			t.Errorf("the last event is %s", last)
		}
	})
	t.Run("one that breaks later is told, and not joined to the next", func(t *testing.T) {
		switchFault(t, s, http.MethodPost, `{"match":"late","action":"cut","after":2,"count":1}`)
		defer switchFault(t, s, http.MethodDelete, "")
		if last := lastEvent(t, s, ask("late", `,"stream":true,"max_tokens":5`)); !strings.Contains(last, `"code":"generation_interrupted"`) {
			t.Errorf("the last event is %s", last)
		}
	})
	t.Run("a drain waits for streams", func(t *testing.T) { // the last: nothing runs after it
		res, err := post(t.Context(), t, s, "/v1/chat/completions", ask("drained", `,"stream":true,"max_tokens":40`))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		lines := bufio.NewScanner(res.Body)
		lines.Scan() // it has begun
		gone := make(chan struct{})
		go func() { stop(); close(gone) }()
		last := lines.Text()
		for lines.Scan() {
			if lines.Text() != "" {
				last = lines.Text()
			}
		}
		if last != "data: [DONE]" || lines.Err() != nil {
			t.Errorf("the last line is %s, %v", last, lines.Err())
		}
		<-gone
	})
}

// lastEvent is the data of the last event of a stream.
func lastEvent(t *testing.T, s *dev.Stack, body string) (last string) {
	t.Helper()
	res, err := post(t.Context(), t, s, "/v1/chat/completions", body)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			last = data
		}
	}
	return last
}
