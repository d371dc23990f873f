//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend/simulated"
)

func TestHappyPath(t *testing.T) {
	s := start(t, params(t))
	t.Run("a submit is accepted, runs and can be polled", func(t *testing.T) {
		got := submitAndSucceed(t, s, "why is the sky blue?")
		if got.Generation != 0 || len(got.Attempts) == 0 || got.Usage == nil {
			t.Errorf("generation %d, %d attempts, usage %v", got.Generation, len(got.Attempts), got.Usage)
		}
	})
	t.Run("a caller who waits gets the result in the same answer", func(t *testing.T) {
		got, done, err := s.Client().SubmitAndWait(t.Context(), prompt("wait for me"), "", 30*time.Second)
		if err != nil || !done || got.Status != task.Succeeded {
			t.Errorf("done %v, status %s, error %v", done, got.Status, err)
		}
	})
	t.Run("one idempotency key is one task", func(t *testing.T) {
		first, err := s.Client().Submit(t.Context(), prompt("once"), "key-"+t.Name())
		if err != nil {
			t.Fatal(err)
		}
		second, err := s.Client().Submit(t.Context(), prompt("once"), "key-"+t.Name())
		if err != nil || second.TaskID != first.TaskID {
			t.Errorf("second submit: %s, %v; want %s", second.TaskID, err, first.TaskID)
		}
	})
	t.Run("a stream can be resumed after any event without a gap or a repeat", func(t *testing.T) { streamAndResume(t, s) })
	t.Run("a queued or running task can be cancelled", func(t *testing.T) { cancelled(t, s) })
	t.Run("a task appears in the caller's list", func(t *testing.T) {
		got := submitAndSucceed(t, s, "list me")
		eventually(t, 10*time.Second, "the task is listed", func() bool {
			page, err := s.Client().List(t.Context(), listAll)
			return err == nil && slices.ContainsFunc(page.Tasks, func(v api.Task) bool { return v.TaskID == got.TaskID })
		})
	})
	t.Run("every process tells its metrics under our names", func(t *testing.T) { metrics(t, s) })
}

func streamAndResume(t *testing.T, s *system.System) {
	accepted, err := s.Client().Submit(t.Context(), api.SubmitRequest{
		Model: "sim-chat", Payload: task.Payload{Messages: []byte(`[{"role":"user","content":"tell me a story"}]`)},
		Params: task.Params{"max_tokens": []byte("40")}, Stream: true,
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	all := tail(t, s, accepted.TaskID, event.ID{})
	last := all[len(all)-1]
	if last.Type != event.Succeeded || last.Result == nil || last.Result.Output == nil {
		t.Fatalf("the stream ends with %+v", last)
	}
	text := ""
	for i, e := range all {
		if i > 0 && !all[i-1].ID.Less(e.ID) {
			t.Errorf("event %s comes after %s", e.ID, all[i-1].ID)
		}
		if e.Type == event.Delta {
			text += e.Text
		}
	}
	if text != last.Result.Output.Text {
		t.Errorf("the pieces make %q, the output is %q", text, last.Result.Output.Text)
	}
	for i, e := range all[:len(all)-1] {
		rest := tail(t, s, accepted.TaskID, e.ID)
		if got, want := ids(rest), ids(all[i+1:]); !slices.Equal(got, want) {
			t.Errorf("resumed after %s: %v, want %v", e.ID, got, want)
		}
	}
	if rest := tail(t, s, accepted.TaskID, last.ID); len(rest) != 0 {
		t.Errorf("resumed after the terminal: %v", ids(rest))
	}
}

func tail(t *testing.T, s *system.System, id task.ID, after event.ID) []event.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out []event.Event
	err := s.Client().Tail(ctx, id, after, func(e event.Event) error {
		if e.Type != event.Queued {
			out = append(out, e)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func ids(events []event.Event) []string {
	out := make([]string, len(events))
	for i, e := range events {
		out[i] = e.ID.String()
	}
	return out
}

func cancelled(t *testing.T, s *system.System) {
	accepted, err := s.Client().Submit(t.Context(), api.SubmitRequest{
		Model: "sim-chat", Payload: task.Payload{Messages: []byte(`[{"role":"user","content":"talk for long"}]`)},
		Params: task.Params{"max_tokens": []byte("2000")}, Stream: true,
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Client().Cancel(t.Context(), accepted.TaskID); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got, err := s.Client().Wait(ctx, accepted.TaskID)
	if err != nil || got.Status != task.Cancelled {
		t.Errorf("status %s, error %v, want cancelled", got.Status, err)
	}
	eventually(t, 5*time.Second, "the engine's slot is free", func() bool {
		return simulatorProcessing(t, s.Simulators[0]) == 0
	})
}

// simulatorProcessing is how many items hold a slot of the simulated engine.
func simulatorProcessing(t *testing.T, p *system.Process) float64 {
	t.Helper()
	return scrape(t, p.URL).Sum("llamacpp:requests_processing")
}

func metrics(t *testing.T, s *system.System) {
	for _, p := range []struct {
		process *system.Process
		prefix  string
	}{
		{s.Producers[0], "penstock_producer_"}, {s.Workers[0], "penstock_worker_"}, {s.Results[0], "penstock_resultsvc_"},
	} {
		m := scrape(t, s.Admin(p.process))
		if m.Sum("penstock_build_info") != 1 {
			t.Errorf("%s has no penstock_build_info", p.process.Name)
		}
		ours := 0
		for sample := range m {
			if strings.HasPrefix(sample, p.prefix) {
				ours++
			}
		}
		if ours == 0 {
			t.Errorf("%s has no sample that begins with %s", p.process.Name, p.prefix)
		}
	}
}

func TestRedisLost(t *testing.T) {
	s := start(t, params(t))
	rdb := openRedis(t)
	first := submitMany(t, s, 300, func(int) api.SubmitRequest { return prompt("before the loss") })
	waitAll(t, s, first[:150])
	if err := rdb.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	second := submitMany(t, s, 300, func(int) api.SubmitRequest { return prompt("after the loss") })
	for _, id := range append(slices.Clone(first), second...) {
		res := poll(t, s, id)
		if res == http.StatusNotFound || res == http.StatusGone {
			t.Fatalf("accepted task %s is answered %d", id, res)
		}
	}
	for id, got := range waitAll(t, s, append(first, second...)) {
		if got.Status != task.Succeeded || got.Output == nil {
			t.Errorf("task %s is %s with output %v", id, got.Status, got.Output)
		}
	}
}

// poll asks once and returns the status.
func poll(t *testing.T, s *system.System, id task.ID) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.Results[0].URL+"/v1/tasks/"+string(id), nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

// waitAll waits until every task has ended, and returns them.
func waitAll(t *testing.T, s *system.System, list []task.ID) map[task.ID]api.Task {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	out := make(map[task.ID]api.Task, len(list))
	for _, id := range list {
		got, err := s.Client().Wait(ctx, id)
		if err != nil {
			t.Fatalf("%d of %d tasks have ended, then: %v", len(out), len(list), err)
		}
		out[id] = got
	}
	return out
}

func openRedis(t *testing.T) *redis.Client {
	t.Helper()
	opts, err := redis.ParseURL(env.redis)
	if err != nil {
		t.Fatal(err)
	}
	cl := redis.NewClient(opts)
	t.Cleanup(func() { _ = cl.Close() })
	return cl
}

func TestTwoResultsServicesTellTheSame(t *testing.T) {
	p := params(t)
	p.Results = 2
	s := start(t, p)
	list := submitMany(t, s, 200, func(int) api.SubmitRequest { return prompt("two readers") })
	waitAll(t, s, list)
	for _, id := range list {
		var bodies []string
		for _, r := range s.Results {
			bodies = append(bodies, taskBody(t, r.URL, id))
		}
		if bodies[0] != bodies[1] {
			t.Errorf("task %s: the two tell different things:\n%s\n%s", id, bodies[0], bodies[1])
		}
	}
}

// taskBody is the data of a poll, as text.
func taskBody(t *testing.T, base string, id task.ID) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/v1/tasks/"+string(id)+"?wait=10", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var body api.Envelope
	if err := json.NewDecoder(res.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	return string(body.Data)
}

// executions asks a simulator what it ran.
func executions(t *testing.T, p *system.Process) simulated.Executions {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.URL+"/sim/executions", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
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
