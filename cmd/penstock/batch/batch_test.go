package batch_test

import (
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
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/penstock/penstock/cmd/penstock/batch"
	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// system is a Penstock that gives one id to one key, and ends a task as its
// text says: "ok …", "bad …", "hold …" until it is let go, "refuse …" not at all.
type system struct {
	t   *testing.T
	cl  *client.Client
	let chan struct{} // closed once held tasks may end

	mu        sync.Mutex
	ids       map[string]task.ID // by key
	texts     map[task.ID]string
	made      int // tasks
	submits   []api.SubmitRequest
	cancelled map[task.ID]time.Time
	gone      map[task.ID]bool
	inFlight  int
	most      int

	at   int // how many tasks must have been made for then to be called
	then func()
}

func start(t *testing.T) *system {
	t.Helper()
	s := &system{
		t: t, let: make(chan struct{}), ids: map[string]task.ID{}, texts: map[task.ID]string{},
		cancelled: map[task.ID]time.Time{}, gone: map[task.ID]bool{},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(api.ModelList{Data: []api.Model{{ID: "sim-chat"}, {ID: "sim-embed"}}})
	})
	mux.HandleFunc("POST /v1/inference", s.submit)
	mux.HandleFunc("GET /v1/tasks/{id}", s.poll)
	mux.HandleFunc("POST /v1/tasks/{id}/cancel", s.cancel)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	var err error
	if s.cl, err = client.New(client.Config{API: srv.URL}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.cl.Close)
	return s
}

func reply(w http.ResponseWriter, status int, data any) {
	raw, _ := json.Marshal(data)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(api.Envelope{Data: raw})
}

func (s *system) submit(w http.ResponseWriter, r *http.Request) {
	var in api.SubmitRequest
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		s.t.Error(err)
	}
	if strings.HasPrefix(in.Payload.Text, "refuse") {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(api.Envelope{Message: "no", Error: &api.Error{Type: fault.Malformed, Param: "payload.text"}})
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := r.Header.Get("Idempotency-Key")
	id, known := s.ids[key]
	if !known {
		s.made++
		id = task.ID(fmt.Sprintf("task_%d", s.made))
		s.ids[key], s.texts[id] = id, in.Payload.Text
		if s.made == s.at {
			s.then()
		}
	}
	s.submits = append(s.submits, in)
	s.inFlight++
	s.most = max(s.most, s.inFlight)
	reply(w, http.StatusAccepted, api.NewAccepted(id))
}

func (s *system) poll(w http.ResponseWriter, r *http.Request) {
	id := task.ID(r.PathValue("id"))
	s.mu.Lock()
	text, at, gone := s.texts[id], s.cancelled[id], s.gone[id]
	s.mu.Unlock()
	if strings.HasPrefix(text, "hold") && at.IsZero() && !gone {
		select {
		case <-s.let:
		case <-r.Context().Done():
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight--
	now := time.Now()
	out := api.Task{TaskID: id, Status: task.Succeeded, EndedAt: &now, Output: &task.Output{Text: strings.ToUpper(text)}}
	switch {
	case gone:
		w.WriteHeader(http.StatusGone)
		return
	case !at.IsZero():
		out.Status, out.EndedAt, out.Output = task.Cancelled, &at, nil
	case strings.HasPrefix(text, "bad"):
		out.Status, out.Output = task.Failed, nil
	}
	reply(w, http.StatusOK, out)
}

func (s *system) cancel(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := task.ID(r.PathValue("id"))
	now := time.Now()
	s.cancelled[id] = now
	reply(w, http.StatusOK, api.Task{TaskID: id, Status: task.Cancelled, EndedAt: &now})
}

// file writes lines of `custom_id text`.
func file(t *testing.T, lines ...string) string {
	t.Helper()
	var out strings.Builder
	for _, l := range lines {
		id, text, _ := strings.Cut(l, " ")
		fmt.Fprintf(&out, `{"custom_id":%q,"payload":{"text":%q}}`+"\n", id, text)
	}
	return raw(t, out.String())
}

func raw(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tasks.jsonl")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// run runs a batch, and returns the lines it wrote to stdout as `id status`.
func (s *system) run(ctx context.Context, p batch.Params) (lines []string, sum batch.Summary, notes string, err error) {
	s.t.Helper()
	var out, told bytes.Buffer
	if p.Concurrency == 0 {
		p.Concurrency = 8
	}
	if p.OnInterrupt == "" {
		p.OnInterrupt = batch.Keep
	}
	p.Stdin, p.Stdout, p.Stderr = strings.NewReader(""), &out, &told
	sum, err = batch.Run(ctx, s.cl, p)
	written := out.Bytes()
	if p.Out != "" {
		var readErr error
		if written, readErr = os.ReadFile(p.Out); readErr != nil {
			s.t.Fatal(readErr)
		}
	}
	return summaries(s.t, written), sum, told.String(), err
}

func summaries(t *testing.T, written []byte) (lines []string) {
	t.Helper()
	for line := range bytes.Lines(written) {
		var one batch.Result
		if err := json.Unmarshal(line, &one); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		status := "refused"
		if one.Task != nil {
			status = string(one.Status)
		}
		lines = append(lines, one.CustomID+" "+status)
	}
	return lines
}

func TestResultsComeWithTheirIDsAsTasksEnd(t *testing.T) {
	s := start(t)
	path := file(t, "a ok one", "b bad two", "c refuse three", "d ok four")
	lines, sum, _, err := s.run(t.Context(), batch.Params{File: path, Defaults: batch.Defaults{Model: "sim-chat", Class: task.Bulk}})
	slices.Sort(lines)
	if diff := cmp.Diff([]string{"a succeeded", "b failed", "c refused", "d succeeded"}, lines); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	if sum != (batch.Summary{Total: 4, Succeeded: 2, Failed: 2}) {
		t.Errorf("%+v", sum)
	}
	for _, in := range s.submits {
		if in.Model != "sim-chat" || in.Class != task.Bulk || in.Labels["custom_id"] == "" || in.Labels["batch"] == "" {
			t.Errorf("%+v", in)
		}
	}
}

func TestSoManyTasksAreInFlightAndNoMore(t *testing.T) {
	s := start(t)
	var lines []string
	for i := range 60 {
		lines = append(lines, fmt.Sprintf("id-%d ok", i))
	}
	got, _, _, err := s.run(t.Context(), batch.Params{File: file(t, lines...), Concurrency: 5})
	if err != nil || len(got) != 60 || s.most > 5 {
		t.Errorf("%d results, %d at once, %v", len(got), s.most, err)
	}
}

func TestNothingIsSubmittedOfAFileWithAMistake(t *testing.T) {
	s := start(t)
	path := raw(t, strings.Join([]string{
		`{"custom_id":"a","payload":{"text":"fine"}}`,
		`{"custom_id":"a","payload":{"text":"twice"}}`,
		``,
		`{"custom_id":"b","payload":{}}`,
		`{"payload":{"text":"no id"}}`,
		`nonsense`,
		`{"custom_id":"c","payload":{"text":"x"},"modle":"sim-chat"}`,
		`{"custom_id":"d","model":"gpt-9","payload":{"text":"x"}}`,
		`{"custom_id":"e","custom_id":"e","payload":{"text":"x"}}`,
		`{"custom_id":"f","method":"POST","url":"/v1/chat/completions","body":{}}`,
		`[]`,
	}, "\n"))
	_, _, _, err := s.run(t.Context(), batch.Params{File: path})
	if _, ok := errors.AsType[*lifecycle.UsageError](err); !ok || len(s.submits) > 0 {
		t.Fatalf("%d submits, %v", len(s.submits), err)
	}
	for number, says := range map[int]string{
		2: "line 1", 4: "payload", 5: "custom_id", 6: "JSON", 7: "modle", 8: "gpt-9", 9: "duplicate", 10: "OpenAI", 11: "object",
	} {
		found := false
		for line := range strings.Lines(err.Error()) {
			found = found || strings.HasPrefix(line, fmt.Sprintf("%s:%d: ", path, number)) && strings.Contains(line, says)
		}
		if !found {
			t.Errorf("line %d is not told with %q in\n%v", number, says, err)
		}
	}
	if strings.Contains(err.Error(), path+":1: ") || strings.Contains(err.Error(), path+":3: ") {
		t.Errorf("a good line is told: %v", err)
	}
}

func TestAFileThatIsWrongThroughoutIsToldBriefly(t *testing.T) {
	s := start(t)
	_, _, _, err := s.run(t.Context(), batch.Params{File: raw(t, strings.Repeat("x\n", 5000))})
	if err == nil || strings.Count(err.Error(), "\n") > 102 || !strings.Contains(err.Error(), "and 4900 more") {
		t.Errorf("%v", err)
	}
	if _, _, _, err := s.run(t.Context(), batch.Params{File: raw(t, "\n\n")}); err == nil {
		t.Error("an empty file is taken")
	}
}

func TestARunThatWasCutGoesOnWithoutNewTasks(t *testing.T) {
	s := start(t)
	p := batch.Params{File: file(t, "a ok", "b hold", "c ok", "d ok"), Out: filepath.Join(t.TempDir(), "out.jsonl"), Concurrency: 2}
	ctx, interrupt := context.WithCancel(t.Context())
	s.at, s.then = 3, interrupt
	lines, _, notes, err := s.run(ctx, p)
	if !errors.Is(err, context.Canceled) || !strings.Contains(notes, "go on") || len(lines) == 0 || len(lines) == 4 {
		t.Fatalf("%v, %v, %s", err, lines, notes)
	}
	cutOff(t, p.Out)
	made := s.made
	close(s.let)
	lines, sum, notes, err := s.run(t.Context(), p)
	slices.Sort(lines)
	if diff := cmp.Diff([]string{"a succeeded", "b succeeded", "c succeeded", "d succeeded"}, lines); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	if s.made != 4 || made != 3 || sum.Before == 0 || !strings.Contains(notes, "already") {
		t.Errorf("%d tasks were made for 4 lines, %+v, %s", s.made, sum, notes)
	}
	if again, sum, _, err := s.run(t.Context(), p); err != nil || len(again) != 4 || sum.Before != 4 {
		t.Errorf("a third run does something: %+v, %v", sum, err)
	}
}

// cutOff leaves a file as a run leaves it that was killed in the middle of a
// line.
func cutOff(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"custom_id":"b","task_`); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestTasksInFlightAreCancelledWhereThatIsWanted(t *testing.T) {
	s := start(t)
	p := batch.Params{File: file(t, "a hold", "b hold", "c hold"), Concurrency: 2, OnInterrupt: batch.Cancel}
	ctx, interrupt := context.WithCancel(t.Context())
	s.at, s.then = 2, interrupt
	_, _, notes, err := s.run(ctx, p)
	if !errors.Is(err, context.Canceled) || len(s.cancelled) != 2 || !strings.Contains(notes, "cancelled") {
		t.Fatalf("%v, %d cancelled, %s", err, len(s.cancelled), notes)
	}
	close(s.let)
	lines, _, _, err := s.run(t.Context(), p)
	if err != nil || len(lines) != 3 || strings.Contains(strings.Join(lines, " "), "cancelled") {
		t.Errorf("a second run has %v, %v: what the first cancelled is made anew", lines, err)
	}
}

func TestATaskWhoseResultIsGoneIsMadeAnew(t *testing.T) {
	s := start(t)
	p := batch.Params{File: file(t, "a ok")}
	if _, _, _, err := s.run(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	s.gone["task_1"] = true
	lines, _, _, err := s.run(t.Context(), p)
	if diff := cmp.Diff([]string{"a succeeded"}, lines); diff != "" || err != nil || s.made != 2 {
		t.Errorf("%v, %d made %s", err, s.made, diff)
	}
}

func TestAFreshRunMakesNewTasks(t *testing.T) {
	s := start(t)
	path := file(t, "a ok", "b ok")
	for _, tc := range []struct {
		p    batch.Params
		made int
	}{{batch.Params{File: path}, 2}, {batch.Params{File: path}, 2}, {batch.Params{File: path, Fresh: true}, 4}} {
		if _, _, _, err := s.run(t.Context(), tc.p); err != nil || s.made != tc.made {
			t.Errorf("%d made, want %d, %v", s.made, tc.made, err)
		}
	}
}

func TestAForeignOutputFileIsLeftAlone(t *testing.T) {
	s := start(t)
	out := raw(t, "my diary\n")
	_, err := batch.Run(t.Context(), s.cl, batch.Params{File: file(t, "a ok"), Out: out, Concurrency: 1, Stderr: io.Discard})
	if _, ok := errors.AsType[*lifecycle.UsageError](err); !ok || len(s.submits) > 0 {
		t.Errorf("%v", err)
	}
	if text, err := os.ReadFile(out); string(text) != "my diary\n" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}
