package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/penstock/penstock/cmd/penstock/cli"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// run runs one command and returns what it printed and its exit code.
func run(t *testing.T, stdin string, env map[string]string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	err := cli.Run(t.Context(), lifecycle.Proc{
		Args: args, Getenv: func(k string) string { return env[k] },
		Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs,
	})
	var coded interface{ ExitCode() int }
	switch {
	case err == nil:
	case errors.As(err, &coded):
		code = coded.ExitCode()
	default:
		code = 1
	}
	if err != nil {
		fmt.Fprint(&errs, err)
	}
	return out.String(), errs.String(), code
}

// envelope answers as the native API does.
func envelope(w http.ResponseWriter, status int, data any) {
	raw, _ := json.Marshal(data)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(api.Envelope{Message: "ok", Data: raw})
}

func refuse(w http.ResponseWriter, status int, code fault.Code, message string) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(api.Envelope{Code: status, Message: message, Error: &api.Error{Type: code}})
}

// server is a Penstock of one task, whose stream breaks once in the middle.
func server(t *testing.T, end task.Status) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/inference", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var req api.SubmitRequest
		if json.Unmarshal(body, &req) != nil || req.Payload.Text == "" {
			refuse(w, 400, fault.Malformed, "payload is required")
			return
		}
		envelope(w, 202, api.Accepted{TaskID: "task_1", Status: task.Queued})
	})
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(api.ModelList{Data: []api.Model{{ID: "sim-chat"}}})
	})
	mux.HandleFunc("POST /v1/inference/batch", func(w http.ResponseWriter, r *http.Request) {
		var req api.BatchRequest
		_ = json.NewDecoder(r.Body).Decode(&req)
		var res api.BatchResponse
		for i := range req.Tasks {
			res.Items = append(res.Items, api.BatchItem{Index: i, Code: 202, Accepted: &api.Accepted{TaskID: task.ID(fmt.Sprintf("task_%d", i+1))}})
		}
		envelope(w, 200, res)
	})
	result := &terminal.Terminal{TaskID: "task_1", Status: end, Output: &task.Output{Text: "deep blue"}}
	if end != task.Succeeded {
		result.Error = &terminal.Error{Code: fault.Rejected, Message: "the backend refused it"}
	}
	mux.HandleFunc("GET /v1/tasks/{id}", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer wrong" {
			refuse(w, 401, fault.Unauthorized, "unknown key")
			return
		}
		envelope(w, 200, api.OfTerminal(result, 0))
	})
	mux.HandleFunc("GET /v1/tasks/{id}/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		send := func(e event.Event) {
			raw, _ := json.Marshal(e)
			fmt.Fprintf(w, "id: %s\nevent: %s\ndata: %s\n\n", e.ID, e.Type, raw)
		}
		delta := func(seq uint64, text string) event.Event {
			return event.Event{ID: event.ID{Fence: 256, Seq: seq}, Type: event.Delta, TaskID: "task_1", Text: text}
		}
		if r.Header.Get("Last-Event-ID") == "" { // the first connection breaks after one piece
			send(delta(1, "deep "))
			return
		}
		fmt.Fprint(w, ": ping\n")
		send(delta(1, "deep ")) // a server may repeat; the client must not
		send(delta(2, "blue"))
		send(event.OfTerminal(result, 0))
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv
}

func TestSubmit(t *testing.T) {
	srv := server(t, task.Succeeded)
	at := map[string]string{"PENSTOCK_API": srv.URL}
	t.Run("prints the accepted task as JSON", func(t *testing.T) {
		out, errs, code := run(t, "", at, "submit", "why?", "-o", "json")
		if code != 0 || !strings.Contains(out, `"task_id": "task_1"`) {
			t.Errorf("exit %d, stdout %s, stderr %s", code, out, errs)
		}
	})
	t.Run("streams the answer and joins it over a broken connection", func(t *testing.T) {
		out, errs, code := run(t, "", at, "submit", "why?", "--stream")
		if code != 0 || out != "deep blue\n" {
			t.Errorf("exit %d, stdout %q, stderr %s", code, out, errs)
		}
	})
	t.Run("sends a file in one call, a line each", func(t *testing.T) {
		lines := `{"payload":{"text":"a"}}` + "\n\n" + `{"payload":{"text":"b"}}` + "\n"
		out, errs, code := run(t, lines, at, "submit", "-f", "-", "-o", "jsonl")
		if code != 0 || strings.Count(out, "\n") != 2 {
			t.Errorf("exit %d, stdout %s, stderr %s", code, out, errs)
		}
	})
	t.Run("names the line that is not JSON and sends nothing", func(t *testing.T) {
		_, errs, code := run(t, "{}\nnonsense\n", at, "submit", "-f", "-")
		if code != 2 || !strings.Contains(errs, "line 2") {
			t.Errorf("exit %d, stderr %s", code, errs)
		}
	})
}

func TestBatchRun(t *testing.T) {
	good, bad := server(t, task.Succeeded), server(t, task.Failed)
	dir := t.TempDir()
	path, out := filepath.Join(dir, "tasks.jsonl"), filepath.Join(dir, "results.jsonl")
	if err := os.WriteFile(path, []byte(`{"custom_id":"a","payload":{"text":"why?"}}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("writes results to stdout and the rest to stderr", func(t *testing.T) {
		stdout, stderr, code := run(t, "", nil, "batch", "run", path, "--api", good.URL)
		if code != 0 || !strings.HasPrefix(stdout, `{"custom_id":"a","task_id":"task_1","status":"succeeded"`) || !strings.Contains(stderr, "1 succeeded") {
			t.Errorf("exit %d, stdout %s, stderr %s", code, stdout, stderr)
		}
	})
	t.Run("writes results to a file, and none twice", func(t *testing.T) {
		for range 2 {
			if stdout, stderr, code := run(t, "", nil, "batch", "run", path, "-o", out, "--api", good.URL); code != 0 || stdout != "" {
				t.Errorf("exit %d, stdout %s, stderr %s", code, stdout, stderr)
			}
		}
		if text, err := os.ReadFile(out); err != nil || strings.Count(string(text), "\n") != 1 {
			t.Errorf("%s, %v", text, err)
		}
	})
	for name, tc := range map[string]struct {
		args []string
		want int
		says string
	}{
		"exits 3 if a task did not succeed":     {[]string{path, "--api", bad.URL}, 3, "1 of 1 tasks did not succeed"},
		"exits 2 for a model that is not there": {[]string{path, "--api", good.URL, "-m", "gpt-9"}, 2, "tasks.jsonl:1: model"},
		"exits 2 for a file that is not there":  {[]string{filepath.Join(dir, "nope"), "--api", good.URL}, 2, "nope"},
		"exits 2 for a choice that is none":     {[]string{path, "--on-interrupt", "panic"}, 2, "ask, keep or cancel"},
		"exits 2 for a concurrency of none":     {[]string{path, "--concurrency", "0"}, 2, "--concurrency"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, stderr, code := run(t, "", nil, append([]string{"batch", "run"}, tc.args...)...); code != tc.want || !strings.Contains(stderr, tc.says) {
				t.Errorf("exit %d, stderr %s", code, stderr)
			}
		})
	}
}

func TestExitCodes(t *testing.T) {
	good, bad := server(t, task.Succeeded), server(t, task.Failed)
	tests := []struct {
		name string
		args []string
		want int
		says string
	}{
		{"0 for a task that succeeded", []string{"wait", "task_1", "--api", good.URL}, 0, ""},
		{"1 for an answer that is an error", []string{"submit", "", "--api", good.URL}, 1, "payload is required"},
		{"2 for an unknown flag", []string{"list", "--nope"}, 2, "--help"},
		{"2 for an unknown command", []string{"nope"}, 2, "unknown command"},
		{"2 for a missing argument", []string{"get"}, 2, "requires at least 1 arg"},
		{"2 for an unknown form of output", []string{"get", "task_1", "-o", "xml", "--api", good.URL}, 2, "want table, json"},
		{"3 for a task that failed", []string{"wait", "task_1", "--api", bad.URL}, 3, "did not succeed"},
		{"3 for a followed task that failed", []string{"tail", "task_1", "--api", bad.URL}, 3, "the backend refused it"},
		{"5 when nobody answers", []string{"get", "task_1", "--api", "http://127.0.0.1:1"}, 5, "penstock dev"},
		{"6 for a key that is not known", []string{"get", "task_1", "--key", "wrong", "--api", good.URL}, 6, "unknown key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, errs, code := run(t, "", nil, tt.args...)
			if code != tt.want || !strings.Contains(errs, tt.says) {
				t.Errorf("exit %d, want %d; stderr %s", code, tt.want, errs)
			}
		})
	}
	t.Run("130 is left to main when a signal cancels", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := cli.Run(ctx, lifecycle.Proc{Args: []string{"get", "task_1", "--api", good.URL}, Getenv: func(string) string { return "" }, Stdout: io.Discard, Stderr: io.Discard})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
		var coded interface{ ExitCode() int }
		if errors.As(err, &coded) {
			t.Errorf("the error carries exit code %d; main must choose", coded.ExitCode())
		}
	})
}

func TestHelpNeverShowsTheKey(t *testing.T) {
	out, errs, _ := run(t, "", map[string]string{"PENSTOCK_KEY": "sk-secret"}, "list", "--help")
	if strings.Contains(out+errs, "sk-secret") {
		t.Error("--help prints the key")
	}
}

func TestSimulateServesUntilItIsStopped(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	read, write := io.Pipe()
	done := make(chan error, 1) // one result
	go func() {
		done <- cli.Run(ctx, lifecycle.Proc{
			Args: []string{"simulate", "--listen", "127.0.0.1:0"}, Getenv: func(string) string { return "" }, Stdout: io.Discard, Stderr: write,
		})
	}()
	line, err := bufio.NewReader(read).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	_, url, _ := strings.Cut(strings.TrimSpace(line), " on ")
	for _, path := range []string{"/readyz", "/v1/models", "/sim/faults"} {
		res, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Errorf("%s answers %s", path, res.Status)
		}
	}
	if _, errs, code := run(t, "", nil, "doctor", "--quick", "--url", url); code != 0 {
		t.Errorf("doctor --quick: exit %d, %s", code, errs)
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("stopped with %v", err)
	}
}
