package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/repeat"
	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/producer/httpapi"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

const chatBody = `{"model":"sim-chat","messages":[{"role":"user","content":"hi"}]}`

const streamBody = `{"model":"sim-chat","messages":[{"role":"user","content":"hi"}],"stream":true}`

// tale is the events of a stream, told in order.
type tale struct {
	w      *world
	events []event.Event // one without a type is a silence
	err    error         // after the last of them
	next   int
}

func (w *world) watch(context.Context, task.ID) (httpapi.Events, error) {
	return &tale{w: w, events: w.tale, err: w.taleErr}, nil
}

func (s *tale) Poll(ctx context.Context, until <-chan time.Time) (follow.Item, error) {
	if s.next >= len(s.events) {
		if s.err == nil {
			<-ctx.Done()
			return follow.Item{}, ctx.Err()
		}
		return follow.Item{}, s.err
	}
	e := s.events[s.next]
	s.next++
	if e.Type == "" {
		<-until
		return follow.Item{}, follow.ErrIdle
	}
	entry, err := eventlog.EntryOf(e)
	return follow.Item{Entry: entry}, err
}

func (s *tale) Close() {}

// calls is an httpapi.Repeats in memory, of one name.
type calls struct {
	mu     sync.Mutex
	open   []task.ID
	left   []leaving
	leaves repeat.Left // so far
	names  map[string]bool
}

func (r *calls) note(call string) func() {
	r.mu.Lock()
	if r.names == nil {
		r.names = map[string]bool{}
	}
	r.names[call] = true
	return r.mu.Unlock
}

func without(ids []task.ID, id task.ID) ([]task.ID, bool) {
	for i := range ids {
		if ids[i] == id {
			return append(append([]task.ID{}, ids[:i]...), ids[i+1:]...), true
		}
	}
	return ids, false
}

func (r *calls) Begin(_ context.Context, call string, id task.ID) error {
	defer r.note(call)()
	r.open = append(r.open, id)
	return nil
}

func (r *calls) Again(_ context.Context, call string) (id task.ID, _ error) {
	defer r.note(call)()
	switch {
	case len(r.left) > 0:
		id, r.left = r.left[0].id, r.left[1:]
	case len(r.open) > 0:
		id, r.open = r.open[0], r.open[1:]
	default:
		return "", nil
	}
	r.open = append(r.open, id)
	return id, nil
}

func (r *calls) Answered(_ context.Context, call string, id task.ID) error {
	defer r.note(call)()
	r.open, _ = without(r.open, id)
	return nil
}

func (r *calls) Leave(_ context.Context, call string, id task.ID) (repeat.Left, error) {
	defer r.note(call)()
	r.open, _ = without(r.open, id)
	r.leaves++
	r.left = append(r.left, leaving{id, r.leaves})
	return r.leaves, nil
}

func (r *calls) Orphan(_ context.Context, call string, at repeat.Left) (alone bool, _ error) {
	defer r.note(call)()
	kept := len(r.left)
	r.left = slices.DeleteFunc(r.left, func(l leaving) bool { return l.at == at })
	return len(r.left) < kept, nil
}

// leaving is a call that was left.
type leaving struct {
	id task.ID
	at repeat.Left
}

func (r *calls) counts() (open, left int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.open), len(r.left)
}

func succeededAs(out *task.Output) *terminal.Terminal {
	return &terminal.Terminal{Status: task.Succeeded, Output: out, Usage: &task.Usage{PromptTokens: 1, CompletionTokens: 1, TotalTokens: 2}, EndedAt: time.Now()}
}

func endedAs(status task.Status, code fault.Code, engine int) *terminal.Terminal {
	return &terminal.Terminal{Status: status, Error: &terminal.Error{Code: code, Message: "because", Status: engine}, EndedAt: time.Now()}
}

func failureIn(t *testing.T, raw []byte) (code, param string) {
	t.Helper()
	var body struct {
		Error map[string]any `json:"error"`
	}
	if err := json.Unmarshal(raw, &body); err != nil || len(body.Error) != 4 {
		t.Fatalf("%v in %s", err, raw)
	}
	code, _ = body.Error["code"].(string)
	param, _ = body.Error["param"].(string)
	return code, param
}

func TestACallIsATaskOfClassInteractive(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	b.winner = succeededAs(&task.Output{Text: "hello", FinishReason: "stop"})
	for _, tc := range []struct {
		target, body, object, key string
		kind                      task.Kind
	}{
		{"/v1/chat/completions", chatBody, "chat.completion", "choices", task.Chat},
		{"/v1/completions", `{"model":"sim-chat","prompt":["a","b"]}`, "text_completion", "choices", task.Completion},
		{"/v1/engines/sim-chat/completions", `{"prompt":"a"}`, "text_completion", "choices", task.Completion},
	} {
		w := b.post(tc.target, tc.body, "X-Stainless-Timeout", "30")
		var got map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK || got["object"] != tc.object || got[tc.key] == nil || got["model"] != "sim-chat" {
			t.Errorf("%s: %d %s", tc.target, w.Code, w.Body)
		}
		last := b.tasks[len(b.tasks)-1]
		h := w.Header()
		if h.Get("X-Task-Id") != string(last.ID) || h.Get("X-Request-Id") != "req-1" || h.Get("Openai-Processing-Ms") == "" {
			t.Errorf("%s: headers %v", tc.target, h)
		}
		if left := time.Until(last.Deadline); last.Class != task.Interactive || last.Kind != tc.kind || left < 25*time.Second || left > 30*time.Second {
			t.Errorf("%s: %+v", tc.target, last)
		}
	}
	if len(b.tasks) != 3 || len(b.tasks[1].Payload.Inputs) != 2 {
		t.Errorf("%d tasks: a prompt array is one", len(b.tasks))
	}
	if open, left := b.repeats.counts(); open+left != 0 {
		t.Errorf("%d calls are still open, %d were left", open, left)
	}
}

func TestEmbeddingsComeAsAsked(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	b.winner = succeededAs(&task.Output{Embeddings: json.RawMessage(`[[1]]`)})
	w := b.post("/v1/embeddings", `{"model":"org/sim-embed","input":[1,2],"encoding_format":"base64","dimensions":1,"user":"u","x\n":1}`)
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"embedding":"AACAPw=="`) || w.Header().Get("X-Penstock-Ignored") != "user" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	if got := b.tasks[0]; got.Kind != task.Embedding || len(got.Payload.Inputs) != 1 || string(got.Params["dimensions"]) != "1" {
		t.Errorf("%+v", got)
	}
}

func TestErrorsAreInTheOpenAIForm(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		body    string
		headers []string
		winner  *terminal.Terminal
		err     error
		limits  admit.Params
		status  int
		code    string
		param   string
		final   bool // a retry is not wanted
	}{
		"no messages":          {`{"model":"sim-chat"}`, nil, nil, nil, admit.Params{}, 400, "malformed", "messages", false},
		"not JSON":             {`{`, nil, nil, nil, admit.Params{}, 400, "malformed", "", false},
		"no JSON by its type":  {chatBody, []string{"Content-Type", "text/plain"}, nil, nil, admit.Params{}, 400, "unsupported_media_type", "", false},
		"an unknown model":     {strings.Replace(chatBody, "sim-chat", "gpt-9", 1), nil, nil, nil, admit.Params{}, 404, "model_not_found", "model", false},
		"a model of a kind":    {strings.Replace(chatBody, "sim-chat", "org/sim-embed", 1), nil, nil, nil, admit.Params{}, 400, "malformed", "model", false},
		"no key":               {chatBody, []string{"Authorization", ""}, nil, nil, admit.Params{}, 401, "invalid_api_key", "", false},
		"a key that may not":   {chatBody, []string{"Authorization", "Bearer acme:read"}, nil, nil, admit.Params{}, 403, "forbidden", "", false},
		"Kafka is away":        {chatBody, nil, nil, errors.New("away"), admit.Params{}, 500, "internal", "", false},
		"too many at once":     {chatBody, nil, nil, nil, admit.Params{TasksPerSecond: .001, Burst: 1}, 429, "rate_limit_exceeded", "", false},
		"the engine refused":   {chatBody, nil, endedAs(task.Failed, fault.Rejected, 422), nil, admit.Params{}, 422, "rejected", "", true},
		"all tries failed":     {chatBody, nil, endedAs(task.Dead, fault.Unavailable, 500), nil, admit.Params{}, 503, "unavailable", "", true},
		"it was cancelled":     {chatBody, nil, endedAs(task.Cancelled, fault.Cancelled, 0), nil, admit.Params{}, 409, "cancelled", "", true},
		"its deadline passed":  {chatBody, nil, endedAs(task.Expired, fault.Expired, 0), nil, admit.Params{}, 504, "expired", "", true},
		"it is no answer":      {chatBody, nil, succeededAs(nil), nil, admit.Params{}, 500, "internal", "", true},
		"it takes too long":    {chatBody, []string{"X-Stainless-Read-Timeout", "0.05"}, nil, nil, admit.Params{}, 504, "timeout", "", true},
		"a key for two bodies": {chatBody, []string{"Idempotency-Key", "used"}, nil, nil, admit.Params{}, 422, "conflict", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, tc.limits)
			b.winner, b.err = tc.winner, tc.err
			b.prints["acme used"] = [2]string{"other", ""}
			if tc.limits.TasksPerSecond > 0 {
				b.winner = succeededAs(&task.Output{Text: "a"})
				b.post("/v1/chat/completions", chatBody)
			}
			for _, body := range []string{tc.body, strings.Replace(tc.body, `"messages"`, `"stream":true,"messages"`, 1)} {
				if tc.winner != nil {
					end := event.OfTerminal(tc.winner, 0)
					b.tale = []event.Event{{Type: event.Queued}, end}
				}
				if strings.Contains(body, "stream") && name == "it takes too long" {
					continue // a stream has heartbeats, and the deadline of its class
				}
				w := b.post("/v1/chat/completions", body, tc.headers...)
				code, param := failureIn(t, w.Body.Bytes())
				if w.Code != tc.status || code != tc.code || param != tc.param || (w.Header().Get("X-Should-Retry") == "false") != tc.final {
					t.Errorf("%s: %d, code %s, param %s, headers %v: %s", body, w.Code, code, param, w.Header(), w.Body)
				}
				if w.Code == http.StatusTooManyRequests && (w.Header().Get("Retry-After") != "120" || w.Header().Get("Retry-After-Ms") != "120000" || w.Header().Get("X-Ratelimit-Remaining-Requests") != "0") {
					t.Errorf("headers %v", w.Header())
				}
				if w.Code == http.StatusGatewayTimeout && w.Header().Get("X-Task-Id") == "" {
					t.Error("no X-Task-Id to ask for")
				}
			}
		})
	}
}

func TestAStreamHasNoIDsAndPingsInOneLine(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	end := event.OfTerminal(succeededAs(&task.Output{Text: "ab", FinishReason: "stop"}), 0)
	b.tale = []event.Event{{Type: event.Queued}, {}, {Type: event.Started}, {Type: event.Delta, Text: "a"}, {}, {Type: event.Delta, Text: "b"}, end}
	w := b.post("/v1/chat/completions", streamBody, "Accept", "application/json")
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/event-stream" || w.Header().Get("X-Accel-Buffering") != "no" {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	var data []string
	for _, line := range strings.Split(w.Body.String(), "\n") {
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "data":
			data = append(data, value)
		case "":
		default:
			t.Errorf("line %q", line)
		}
	}
	if strings.Contains(w.Body.String(), ": ping\n\n") || strings.Count(w.Body.String(), ": ping\n") != 2 {
		t.Errorf("a ping is one line: %q", w.Body)
	}
	if len(data) != 4 || data[3] != "[DONE]" || !strings.Contains(data[2], `"finish_reason":"stop"`) {
		t.Errorf("%d events: %q", len(data), data)
	}
}

// endsOpenly reads a stream over a connection and says how it ended.
func endsOpenly(t *testing.T, b *bundle) (last string, cut bool) {
	t.Helper()
	srv := httptest.NewServer(b.handler)
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+"/v1/chat/completions", strings.NewReader(streamBody))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer acme")
	res, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	events := strings.Split(strings.TrimSpace(string(raw)), "\n\n")
	return strings.TrimPrefix(events[len(events)-1], "data: "), err != nil
}

func TestAFailedStreamNeverEndsAsIfItWereWhole(t *testing.T) {
	t.Parallel()
	shown := event.Event{Type: event.Delta, Text: "a"}
	for name, tc := range map[string]struct {
		tale []event.Event
		err  error
		code string
	}{
		"a new attempt":               {[]event.Event{shown, {Type: event.Restart}}, nil, "generation_interrupted"},
		"another text":                {[]event.Event{shown, event.OfTerminal(succeededAs(&task.Output{Text: "b"}), 0)}, nil, "generation_interrupted"},
		"a reader that is too slow":   {[]event.Event{shown}, follow.ErrSlow, "generation_interrupted"},
		"a failed task":               {[]event.Event{shown, event.OfTerminal(endedAs(task.Dead, fault.Timeout, 0), 0)}, nil, "timeout"},
		"an end without result":       {[]event.Event{shown, {ID: event.TerminalID(0), Type: event.Succeeded}}, nil, "unavailable"},
		"a result that is gone":       {[]event.Event{shown}, io.EOF, "gone"},
		"an output that is elsewhere": {[]event.Event{shown, event.OfTerminal(&terminal.Terminal{Status: task.Succeeded, OutputRef: &task.Ref{Key: "lost"}}, 0)}, nil, "unavailable"},
		"no shape":                    {[]event.Event{shown, event.OfTerminal(succeededAs(&task.Output{Choices: json.RawMessage("[null]")}), 0)}, nil, "internal"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, admit.Params{})
			b.tale, b.taleErr = tc.tale, tc.err
			last, cut := endsOpenly(t, b)
			if cut {
				return
			}
			if code, _ := failureIn(t, []byte(last)); code != tc.code {
				t.Errorf("the last event is %s", last)
			}
		})
	}
}

func TestARetryBeforeTokensIsInvisible(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	b.tale = []event.Event{
		{Type: event.Started},
		{Type: event.Restart},
		{Type: event.Delta, Text: "a"},
		event.OfTerminal(succeededAs(&task.Output{Text: "a", FinishReason: "stop"}), 0),
	}
	if last, cut := endsOpenly(t, b); cut || last != "[DONE]" {
		t.Errorf("ended with %s, cut %t", last, cut)
	}
}

func TestARetryJoinsTheTaskOfItsCall(t *testing.T) {
	t.Parallel()
	b := setupAs(t, admit.Params{}, t.TempDir(), 2*time.Second) // a machine at its limits is late
	retry := func(n int) task.ID {
		t.Helper()
		w := b.post("/v1/chat/completions", chatBody, "X-Stainless-Retry-Count", strconv.Itoa(n), "X-Stainless-Read-Timeout", "0.02")
		return task.ID(w.Header().Get("X-Task-Id"))
	}
	ctx, hangUp := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // a call whose client goes away
		defer close(done)
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/chat/completions", strings.NewReader(chatBody))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer acme")
		b.handler.ServeHTTP(httptest.NewRecorder(), r)
	}()
	eventually(t, func() bool { open, _ := b.repeats.counts(); return open == 1 })
	first := b.repeats.open[0]
	hangUp()
	eventually(t, func() bool { _, left := b.repeats.counts(); return left == 1 })
	if got := retry(1); got != first {
		t.Errorf("the retry runs %s, the call runs %s", got, first)
	}
	<-done
	if len(b.ends) != 0 {
		t.Error("a task that a retry took was cancelled")
	}
	if got := retry(0); got == first || got == "" {
		t.Errorf("a call that is no retry runs %s", got)
	}
	if w := b.post("/v1/chat/completions", chatBody, "X-Stainless-Retry-Count", "1", "Authorization", "Bearer other", "X-Stainless-Read-Timeout", "0.02"); w.Header().Get("X-Task-Id") == string(first) {
		t.Error("another tenant joined it")
	}
}

func TestWhoHangsUpCancelsItsTask(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{"waiting": chatBody, "streaming": streamBody} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, admit.Params{})
			ctx, hangUp := context.WithCancel(t.Context())
			defer hangUp()
			time.AfterFunc(20*time.Millisecond, hangUp)
			r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/chat/completions", strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Authorization", "Bearer acme")
			b.handler.ServeHTTP(httptest.NewRecorder(), r)
			if len(b.ends) != 1 || b.ends[0].Status != task.Cancelled || b.ends[0].TaskID != b.tasks[0].ID {
				t.Errorf("ends %+v", b.ends)
			}
			b.drain() // and not when it is the server that goes away
			again, hangUpAgain := context.WithCancel(t.Context())
			defer hangUpAgain()
			time.AfterFunc(20*time.Millisecond, hangUpAgain)
			b.handler.ServeHTTP(httptest.NewRecorder(), r.Clone(again))
			if len(b.ends) != 1 {
				t.Error("a drain cancelled a task")
			}
		})
	}
}

func eventually(t *testing.T, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 5000 {
		if holds() {
			return
		}
		<-tick.C
	}
	t.Fatal("it did not happen")
}
