package httpapi_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/schema/api"
)

// golden holds status, headers and body of every refusal. To accept what
// changed, delete the file's stale entries by running with UPDATE_GOLDEN=1 and
// read the diff.
const golden = "testdata/refusals.golden"

type refusal struct {
	name    string
	target  string // default /v1/inference
	body    string
	zip     bool
	headers []string
}

func refusals() []refusal {
	submit := func(members string) string { return `{"model":"sim-chat","payload":{"text":"a"},` + members + `}` }
	inputs := func(n int) string {
		return `{"model":"org/sim-embed","payload":{"inputs":[` + strings.TrimSuffix(strings.Repeat(`"a",`, n), ",") + `]}}`
	}
	past := time.Unix(0, 0).UTC().Format(time.RFC3339)
	return []refusal{
		{name: "no body"},
		{name: "white space", body: " \n"},
		{name: "not JSON", body: "hello"},
		{name: "cut short", body: hello[:20]},
		{name: "not an object", body: "[]"},
		{name: "a text that is a number", body: `{"model":"sim-chat","payload":{"text":7}}`},
		{name: "a role that is a number", body: `{"model":"sim-chat","payload":{"messages":[{"role":7,"content":"CANARY"}]}}`},
		{name: "no payload", body: `{"model":"sim-chat"}`},
		{name: "an empty payload", body: `{"model":"sim-chat","payload":{}}`},
		{name: "a payload in two forms", body: `{"model":"sim-chat","payload":{"text":"a","inputs":["a"]}}`},
		{name: "an unknown field", body: submit(`"modle":"x"`)},
		{name: "a name in another case", body: submit(`"Model":"org/sim-embed"`)},
		{name: "an unknown class", body: submit(`"class":"urgent"`)},
		{name: "an unknown model", body: `{"model":"gpt-9","payload":{"text":"a"}}`},
		{name: "a kind the model does not do", body: `{"model":"org/sim-embed","payload":{"messages":[{"role":"user","content":"a"}]}}`},
		{name: "duplicate names", body: `{"model":"sim-chat","model":"org/sim-embed","payload":{"text":"a"}}`},
		{name: "100,000 levels deep", body: `{"model":"sim-chat","payload":{"text":"a"},"params":{"x":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}}`},
		{name: "invalid UTF-8", body: "{\"model\":\"sim-chat\",\"payload\":{\"text\":\"\xff\"}}"},
		{name: "data behind the body", body: hello + hello},
		{name: "a deadline in the past", body: submit(`"deadline":"` + past + `"`)},
		{name: "a deadline that is no date", body: submit(`"deadline":"tomorrow"`)},
		{name: "a deadline too far away", body: submit(`"deadline":"2999-01-01T00:00:00Z"`)},
		{name: "deadline and timeout", body: submit(`"deadline":"2999-01-01T00:00:00Z","timeout":"1s"`)},
		{name: "a timeout that is none", body: submit(`"timeout":"soon"`)},
		{name: "a webhook inside", body: submit(`"webhook":{"url":"https://169.254.169.254/latest"}`)},
		{name: "a webhook without a URL", body: submit(`"webhook":{"events":["task.dead"]}`)},
		{name: "an event that there is not", body: submit(`"webhook":{"url":"https://example.com/hook","events":["dead"]}`)},
		{name: "a payload by reference", body: `{"model":"sim-chat","payload":{"ref":{"key":"x","sha256":"x","bytes":1}}}`},

		{name: "no media type", body: hello, headers: []string{"Content-Type", ""}},
		{name: "another media type", body: hello, headers: []string{"Content-Type", "text/plain"}},
		{name: "another charset", body: hello, headers: []string{"Content-Type", "application/json; charset=latin1"}},
		{name: "another encoding", body: hello, headers: []string{"Content-Encoding", "br"}},
		{name: "gzip that is none", body: hello, headers: []string{"Content-Encoding", "gzip"}},

		{name: "one byte over the body limit", body: `{"model":"sim-chat","payload":{"text":"` + large(api.MaxBody+1-42) + `"}}`},
		{name: "a gzip bomb", body: `{"model":"sim-chat","payload":{"text":"` + large(16<<20) + `"}}`, zip: true},
		{name: "a model name over the limit", body: `{"model":"` + large(api.MaxName+1) + `","payload":{"text":"a"}}`},
		{name: "a session id over the limit", body: submit(`"session_id":"` + large(api.MaxName+1) + `"`)},
		{name: "an ordering key over the limit", body: submit(`"ordering_key":"` + large(api.MaxName+1) + `"`)},
		{name: "an input over the limit", body: inputs(api.MaxInputs + 1)},
		{name: "a label over the limit", body: submit(`"labels":` + labels(api.MaxLabels+1, 2, 1))},
		{name: "a label name over the limit", body: submit(`"labels":` + labels(1, api.MaxLabel+1, 1))},
		{name: "a label value over the limit", body: submit(`"labels":` + labels(1, 2, api.MaxLabel+1))},
		{name: "an idempotency key over the limit", body: hello, headers: []string{"Idempotency-Key", large(api.MaxName + 1)}},
		{name: "an idempotency key that is empty", body: hello, headers: []string{"Idempotency-Key", `""`}},
		{name: "an idempotency key that is neither", body: hello, headers: []string{"Idempotency-Key", `"open`}},

		{name: "a list that is none", target: "/v1/inference/batch", body: hello},
		{name: "an empty list", target: "/v1/inference/batch", body: `{"tasks":[]}`},
		{name: "an item over the limit", target: "/v1/inference/batch", body: `{"tasks":[` + strings.TrimSuffix(strings.Repeat("1,", api.MaxBatch+1), ",") + `]}`},
		{name: "a message without a source", target: "/api/forward", body: `{"payload":{"text":"a"}}`},
		{name: "a message without a text", target: "/api/forward", body: `{"source":"web","payload":{}}`},
		{name: "a message with two keys", target: "/api/forward", body: `{"message_id":"a","source":"web","payload":{"text":"a"}}`, headers: []string{"Idempotency-Key", "b"}},

		{name: "a stranger", body: hello, headers: []string{"Authorization", ""}},
		{name: "a caller who may only read", body: hello, headers: []string{"Authorization", "Bearer acme:read"}},
		{name: "another method", target: "GET /v1/inference"},
		{name: "a cancel of no task", target: "/v1/tasks/task_x/cancel"},
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	var got bytes.Buffer
	for _, r := range refusals() {
		method, target := http.MethodPost, r.target
		if m, rest, ok := strings.Cut(target, " "); ok {
			method, target = m, rest
		}
		if target == "" {
			target = "/v1/inference"
		}
		body := io.Reader(strings.NewReader(r.body))
		if r.zip {
			body, r.headers = zipped(t, []byte(r.body)), append(r.headers, "Content-Encoding", "gzip")
		}
		w := b.call(method, target, body, r.headers...)
		fmt.Fprintf(&got, "%s\n  %d%s\n  %s\n", r.name, w.Code, headersOf(w.Header()), strings.TrimSpace(w.Body.String()))
		if w.Code < 400 {
			t.Errorf("%s: accepted with %d", r.name, w.Code)
		}
	}
	if strings.Contains(got.String(), "CANARY") {
		t.Error("an answer repeats a payload")
	}
	if len(b.tasks) != 0 {
		t.Errorf("%d refused tasks were written", len(b.tasks))
	}
	compareGolden(t, got.Bytes())
	if w := b.post("/v1/inference", hello); w.Code != http.StatusAccepted {
		t.Errorf("after all that a good task got %d", w.Code)
	}
}

func headersOf(h http.Header) string {
	out := ""
	for _, name := range []string{"Retry-After", "Allow", "Accept-Encoding", "WWW-Authenticate"} {
		if v := h.Get(name); v != "" {
			out += " " + name + ": " + v
		}
	}
	return out
}

func compareGolden(t *testing.T, got []byte) {
	t.Helper()
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
		t.Error(diff)
	}
}

func TestTheLimitsThemselvesAreTaken(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	for name, body := range map[string]string{
		"a body of the limit":   `{"model":"sim-chat","payload":{"text":"` + large(api.MaxBody-42) + `"}}`,
		"labels of the limit":   `{"model":"sim-chat","payload":{"text":"a"},"labels":` + labels(api.MaxLabels, api.MaxLabel, api.MaxLabel) + `}`,
		"names of the limit":    `{"model":"sim-chat","payload":{"text":"a"},"session_id":"` + large(api.MaxName) + `","ordering_key":"` + large(api.MaxName) + `"}`,
		"nesting of the limit":  `{"model":"sim-chat","payload":{"text":"a"},"params":{"x":` + strings.Repeat("[", api.MaxDepth-2) + strings.Repeat("]", api.MaxDepth-2) + `}}`,
		"inputs of the limit":   `{"model":"org/sim-embed","payload":{"inputs":[` + strings.TrimSuffix(strings.Repeat(`"a",`, api.MaxInputs), ",") + `]}}`,
		"an idempotency key of": hello,
	} {
		if w := b.post("/v1/inference", body, "Idempotency-Key", large(api.MaxName-len(name))+strings.ReplaceAll(name, " ", "-")); w.Code != http.StatusAccepted {
			t.Errorf("%s: %d %.300s", name, w.Code, w.Body)
		}
	}
}

func TestKafkaTroubleIs503AndNever202(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		err         error
		code, retry string
		status      int
	}{
		{tasktopic.ErrFull, "unavailable", "1", 503},
		{tasktopic.ErrUnknown, "unavailable", "2", 503},
		{tasktopic.ErrTooLarge, "too_large", "", 413},
	} {
		t.Run(tc.err.Error(), func(t *testing.T) {
			t.Parallel()
			b := setup(t, admit.Params{})
			b.err = tc.err
			w := b.post("/v1/inference", hello)
			if w.Code != tc.status || w.Header().Get("Retry-After") != tc.retry || !strings.Contains(w.Body.String(), `"type":"`+tc.code+`"`) || w.Header().Get("Location") != "" {
				t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
			}
			list := b.post("/v1/inference/batch", `{"tasks":[`+hello+`]}`)
			if got := dataOf[api.BatchResponse](t, list); got.Accepted != 0 || got.Items[0].Code != tc.status {
				t.Errorf("%s", list.Body)
			}
		})
	}
}

func TestATenantOverItsRateIsTold(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{TasksPerSecond: 0.1, Burst: 1})
	if w := b.post("/v1/inference", hello); w.Code != http.StatusAccepted {
		t.Fatal(w.Body)
	}
	w := b.post("/v1/inference", hello)
	if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "10" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
}
