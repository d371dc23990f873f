package httpapi_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

const hello = `{"model":"sim-chat","payload":{"text":"hello"}}`

func TestSubmitAnswers202WithEveryURL(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	for _, contentType := range []string{"application/json", "application/json; charset=UTF-8", "Application/JSON"} {
		w := b.post("/v1/inference", hello, "Content-Type", contentType)
		got := dataOf[api.Accepted](t, w)
		url := "/v1/tasks/" + string(got.TaskID)
		want := api.Accepted{TaskID: got.TaskID, Status: task.Queued, StatusURL: url, EventsURL: url + "/events", CancelURL: url + "/cancel"}
		if diff := cmp.Diff(want, got); w.Code != http.StatusAccepted || w.Header().Get("Location") != url || diff != "" {
			t.Errorf("%d %s %s", w.Code, w.Header().Get("Location"), diff)
		}
		if err := b.minter.Check(got.TaskID, "acme"); err != nil {
			t.Error(err)
		}
	}
	if len(b.tasks) != 3 || b.tasks[0].Tenant != "acme" || b.tasks[0].Payload.Text != "hello" {
		t.Errorf("%+v", b.tasks)
	}
}

func TestAGzippedBodyIsTaken(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	w := b.call(http.MethodPost, "/v1/inference", zipped(t, []byte(hello)), "Content-Encoding", "gzip")
	if w.Code != http.StatusAccepted {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func zipped(tb testing.TB, body []byte) *bytes.Buffer {
	tb.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err := z.Write(body)
	if err = errors.Join(err, z.Close()); err != nil {
		tb.Fatal(err)
	}
	return &out
}

func TestIdempotencyKeys(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	first := b.post("/v1/inference", hello, "Idempotency-Key", `"a \"key\" \\ of words"`)
	again := b.post("/v1/inference", ` { "payload":{"text":"hello"}, "model":"sim-chat"}`, "Idempotency-Key", `"a \"key\" \\ of words"`)
	if first.Code != http.StatusAccepted || first.Body.String() != again.Body.String() || first.Header().Get("Location") != again.Header().Get("Location") {
		t.Errorf("%s\n%s", first.Body, again.Body)
	}
	if len(b.tasks) != 1 {
		t.Errorf("%d records", len(b.tasks))
	}
	plain, quoted := b.post("/v1/inference", hello, "Idempotency-Key", "k-7"), b.post("/v1/inference", hello, "Idempotency-Key", `"k-7"`)
	if plain.Body.String() != quoted.Body.String() {
		t.Error("one key in two spellings gave two tasks")
	}
	if w := b.post("/v1/inference", strings.Replace(hello, "hello", "bye", 1), "Idempotency-Key", "k-7"); w.Code != http.StatusUnprocessableEntity {
		t.Errorf("another body got %d", w.Code)
	}
	if w := b.post("/v1/inference", hello, "Idempotency-Key", "k-7", "Authorization", "Bearer other"); w.Code != http.StatusAccepted || w.Body.String() == plain.Body.String() {
		t.Errorf("another tenant got %d %s", w.Code, w.Body)
	}
}

func TestPreferWait(t *testing.T) {
	t.Parallel()
	t.Run("answers 200 with the result", func(t *testing.T) {
		t.Parallel()
		b := setup(t, admit.Params{})
		b.winner = &terminal.Terminal{Status: task.Succeeded, Output: &task.Output{Text: "hi"}, EndedAt: time.Unix(9, 0).UTC()}
		w := b.post("/v1/inference", hello, "Prefer", "respond-async, wait=30; x=1")
		got := dataOf[api.Task](t, w)
		if w.Code != http.StatusOK || got.Status != task.Succeeded || got.Output.Text != "hi" || w.Header().Get("Preference-Applied") != "wait=30" {
			t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
		}
	})
	t.Run("falls back to the 202 in time", func(t *testing.T) {
		t.Parallel()
		b := setup(t, admit.Params{})
		began := time.Now()
		w := b.post("/v1/inference", hello, "Prefer", "wait=1")
		if took := time.Since(began); w.Code != http.StatusAccepted || w.Header().Get("Preference-Applied") != "wait=1" || took < time.Second || took > 5*time.Second {
			t.Errorf("%d after %s %v", w.Code, took, w.Header())
		}
	})
	t.Run("does not hold up a drain, and caps at a minute", func(t *testing.T) {
		t.Parallel()
		b := setup(t, admit.Params{})
		b.drain()
		w := b.post("/v1/inference", hello, "Prefer", "wait=9999")
		if w.Code != http.StatusAccepted || w.Header().Get("Preference-Applied") != "wait=60" {
			t.Errorf("%d %v", w.Code, w.Header())
		}
	})
	t.Run("ignores what is no wait", func(t *testing.T) {
		t.Parallel()
		b := setup(t, admit.Params{})
		for _, prefer := range []string{"wait", "wait=", "wait=-1", "wait=0", "wait=1.5", "wait=99999999999", "return=minimal", ",;="} {
			if w := b.post("/v1/inference", hello, "Prefer", prefer); w.Code != http.StatusAccepted || w.Header().Get("Preference-Applied") != "" {
				t.Errorf("%s: %d %v", prefer, w.Code, w.Header())
			}
		}
		if b.waits != 0 {
			t.Errorf("waited %d times", b.waits)
		}
	})
}

func TestBatchDecidesEachItemOnItsOwn(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	body := `{"tasks":[` + hello + `,{"model":"nope","payload":{"text":"a"}},{"payload":{"text":"a","text":"b"}},{"payload":{"messages":[{"role":7}]}},` +
		strings.Replace(hello, "hello", "bye", 1) + `]}`
	w := b.post("/v1/inference/batch", body, "Idempotency-Key", "list")
	got := dataOf[api.BatchResponse](t, w)
	if w.Code != http.StatusAccepted || got.Accepted != 2 || got.Refused != 3 || len(got.Items) != 5 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	want := []api.BatchItem{
		{Index: 0, Code: 202, Accepted: got.Items[0].Accepted},
		{Index: 1, Code: 404, Error: &api.Error{Type: "not_found", Param: "model", Message: "model: no such model among the 2 known; see GET /v1/models"}},
		{Index: 2, Code: 400, Error: &api.Error{Type: "malformed", Param: "payload.text", Message: "payload.text: duplicate name at byte 23"}},
		{Index: 3, Code: 400, Error: &api.Error{Type: "malformed", Param: "payload.messages[0].role", Message: "payload.messages[0].role: expected string, got number"}},
		{Index: 4, Code: 202, Accepted: got.Items[4].Accepted},
	}
	if diff := cmp.Diff(want, got.Items); diff != "" {
		t.Error(diff)
	}
	again := dataOf[api.BatchResponse](t, b.post("/v1/inference/batch", body, "Idempotency-Key", "list"))
	if diff := cmp.Diff(got, again); diff != "" || len(b.tasks) != 2 {
		t.Error("the same list under the same key differs", diff, len(b.tasks))
	}
	none := b.post("/v1/inference/batch", `{"tasks":[{}]}`)
	if data := dataOf[api.BatchResponse](t, none); none.Code != http.StatusOK || data.Refused != 1 {
		t.Errorf("a list with nothing accepted got %d %s", none.Code, none.Body)
	}
}

func TestABatchOfTheLimitIsTaken(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	w := b.post("/v1/inference/batch", `{"tasks":[`+strings.TrimSuffix(strings.Repeat(hello+",", api.MaxBatch), ",")+`]}`)
	if got := dataOf[api.BatchResponse](t, w); got.Accepted != api.MaxBatch {
		t.Errorf("%d accepted", got.Accepted)
	}
}

func TestForwardTakesAMessage(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	body := `{"message_id":"m-1","source":"iot","payload":{"text":"21 degrees","context":{"room":4}},"session_id":"s","timestamp":"2026-11-21T12:00:00+01:00"}`
	w := b.post("/api/forward", body)
	if w.Code != http.StatusAccepted || len(b.tasks) != 1 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	got := b.tasks[0]
	if got.Model != "sim-chat" || got.Source != task.SourceIOT || got.SessionID != "s" || string(got.Payload.Context) != `{"room":4}` {
		t.Errorf("%+v", got)
	}
	if diff := cmp.Diff(map[string]string{"message_id": "m-1", "timestamp": "2026-11-21T11:00:00Z"}, got.Labels); diff != "" {
		t.Error(diff)
	}
	if again := b.post("/api/forward", body, "Idempotency-Key", "m-1"); again.Body.String() != w.Body.String() || len(b.tasks) != 1 {
		t.Error("a message sent twice became two tasks")
	}
	b.winner = &terminal.Terminal{Status: task.Failed}
	if w := b.post("/api/forward", `{"source":"web","payload":{"text":"a"}}`, "Prefer", "wait=5"); w.Code != http.StatusOK || len(b.tasks[1].Labels) != 0 {
		t.Errorf("%d %v", w.Code, b.tasks[1].Labels)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	id := b.minter.New("acme", time.Now())
	w := b.post("/v1/tasks/"+string(id)+"/cancel", "", "Content-Type", "")
	if got := dataOf[api.Task](t, w); w.Code != http.StatusAccepted || got.TaskID != id || w.Header().Get("Location") != "/v1/tasks/"+string(id) || len(b.ends) != 1 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	b.winner = &terminal.Terminal{Status: task.Cancelled}
	w = b.post("/v1/tasks/"+string(id)+"/cancel", "")
	if got := dataOf[api.Task](t, w); w.Code != http.StatusOK || got.Status != task.Cancelled {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := b.post("/v1/tasks/"+string(id)+"/cancel", "", "Authorization", "Bearer other"); w.Code != http.StatusNotFound {
		t.Errorf("a stranger got %d", w.Code)
	}
}

func TestModelsAreInTheOpenAIShape(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	for target, want := range map[string]string{
		"/v1/models":                 `{"object":"list","data":[{"id":"sim-chat","object":"model","created":1,"owned_by":"penstock"},{"id":"org/sim-embed","object":"model","created":2,"owned_by":"penstock"}]}`,
		"/v1/models/sim-chat":        `{"id":"sim-chat","object":"model","created":1,"owned_by":"penstock"}`,
		"/v1/models/org/sim-embed":   `{"id":"org/sim-embed","object":"model","created":2,"owned_by":"penstock"}`,
		"/v1/models/org%2Fsim-embed": `{"id":"org/sim-embed","object":"model","created":2,"owned_by":"penstock"}`,
	} {
		w := b.call(http.MethodGet, target, nil, "Content-Type", "")
		if got := strings.TrimSpace(w.Body.String()); w.Code != http.StatusOK || got != want {
			t.Errorf("%s: %d %s", target, w.Code, got)
		}
	}
	w := b.call(http.MethodGet, "/v1/models/gpt-9", nil)
	var body struct {
		Error map[string]any `json:"error"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != http.StatusNotFound || len(body.Error) != 4 || body.Error["code"] != "model_not_found" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := b.call(http.MethodGet, "/v1/models", nil, "Authorization", ""); w.Code != http.StatusUnauthorized {
		t.Errorf("a stranger got %d", w.Code)
	}
}

func TestTheBudgetOfBytesIsGivenBack(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{InFlightBytes: 1})
	for i := range 20 {
		body := hello
		if i%2 == 1 {
			body = "not json"
		}
		if w := b.post("/v1/inference", body); w.Code == http.StatusTooManyRequests {
			t.Fatalf("request %d: %s", i, w.Body)
		}
	}
}

// FuzzSubmit sends any body to every route that decodes one: no panic, no 5xx,
// and nothing accepted that is not written.
func FuzzSubmit(f *testing.F) {
	b := setup(f, admit.Params{})
	for _, seed := range []string{
		hello, `{"tasks":[` + hello + `]}`, `{"source":"web","payload":{"text":"a"}}`, `{"payload":{"inputs":[[1,2],"a"]},"model":"org/sim-embed"}`,
		`{"payload":{"messages":[{"role":"user","content":[{"type":"text"}]}]},"timeout":"1s","labels":{"a":"b"},"params":{"n":1e9}}`, `[`, "\xff",
	} {
		f.Add([]byte(seed), "key")
	}
	f.Fuzz(func(t *testing.T, body []byte, key string) {
		for _, target := range []string{"/v1/inference", "/v1/inference/batch", "/api/forward"} {
			b.mu.Lock()
			before := len(b.tasks)
			b.mu.Unlock()
			w := b.call(http.MethodPost, target, bytes.NewReader(body), "Idempotency-Key", key)
			if w.Code >= 500 || !json.Valid(w.Body.Bytes()) {
				t.Fatalf("%s: %d %s", target, w.Code, w.Body)
			}
			if w.Code == http.StatusAccepted && key == "" && len(b.tasks) == before {
				t.Fatalf("%s: 202 and no record", target)
			}
		}
	})
}

func BenchmarkSubmit(b *testing.B) {
	s := setup(b, admit.Params{})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if w := s.post("/v1/inference", hello); w.Code != http.StatusAccepted {
			b.Fatal(w.Code)
		}
		if i%1000 == 0 {
			s.tasks = s.tasks[:0]
		}
	}
}

// large is a text of n bytes.
func large(n int) string { return strings.Repeat("a", n) }

// labels is an object of n members with names and values of so many bytes.
func labels(n, name, value int) string {
	var parts []string
	for i := range n {
		parts = append(parts, fmt.Sprintf("%q:%q", fmt.Sprintf("%0*d", name, i), large(value)))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func TestATenantLearnsItsWebhookSecretAndNobodyKeepsIt(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	ask := func(token string) (string, *httptest.ResponseRecorder) {
		w := b.call(http.MethodGet, "/v1/webhooks/secret", nil, "Authorization", "Bearer "+token)
		if w.Code != http.StatusOK {
			return "", w
		}
		return dataOf[api.WebhookSecret](t, w).Secret, w
	}
	ours, w := ask("acme:submit")
	theirs, _ := ask("other")
	if !strings.HasPrefix(ours, "whsec_") || ours == theirs || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("ours begins with %.6s, both alike: %t, %v", ours, ours == theirs, w.Header())
	}
	for token, want := range map[string]int{"acme:read": http.StatusForbidden, "": http.StatusUnauthorized} {
		if _, w := ask(token); w.Code != want {
			t.Errorf("with %q: %d", token, w.Code)
		}
	}
}
