package httpapi_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/producer/httpapi"
	"github.com/penstock/penstock/schema/fault"
)

// judge is a Filter that answers as it is told.
type judge struct {
	asked []string
	err   error
}

func (j *judge) Ask(_ context.Context, body []byte) ([]byte, error) {
	j.asked = append(j.asked, string(body))
	return []byte(`{"results":[{"flagged":false}]}`), j.err
}

func TestModerationsAskTheFilter(t *testing.T) {
	b := setup(t, admit.Params{})
	w := b.post("/v1/moderations", `{"input":"hi","model":null,"user":"u1"}`)
	if w.Code != 200 || w.Body.String() != `{"results":[{"flagged":false}]}` || w.Header().Get("X-Penstock-Ignored") != "user" {
		t.Errorf("%d %s %v", w.Code, w.Body, w.Header())
	}
	if diff := cmp.Diff([]string{`{"input":"hi"}`}, b.judge.asked); diff != "" {
		t.Error(diff)
	}
	if len(b.tasks) != 0 {
		t.Error("a moderation made a task")
	}
}

func TestModerationsAreRefusedLikeEveryCall(t *testing.T) {
	for name, c := range map[string]struct {
		body    string
		headers []string
		err     error
		status  int
		kind    string
	}{
		"without an input":        {body: `{}`, status: 400, kind: "invalid_request_error"},
		"with a URL to fetch":     {body: `{"input":[{"type":"image_url","image_url":{"url":"http://10.0.0.1/"}}]}`, status: 400, kind: "invalid_request_error"},
		"without a key":           {body: `{"input":"x"}`, headers: []string{"Authorization", ""}, status: 401, kind: "authentication_error"},
		"without the scope":       {body: `{"input":"x"}`, headers: []string{"Authorization", "Bearer acme:read"}, status: 403, kind: "permission_error"},
		"what the filter refuses": {body: `{"input":"x"}`, err: fault.New(fault.Rejected, "no"), status: 400, kind: "invalid_request_error"},
		"a filter that is away": {
			body: `{"input":"x"}`, err: &fault.Error{Code: fault.Unavailable, RetryAfter: time.Second, Message: "away"}, status: 503, kind: "server_error",
		},
		"a filter that is slow": {body: `{"input":"x"}`, err: fault.New(fault.Timeout, "slow"), status: 504, kind: "server_error"},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t, admit.Params{})
			b.judge.err = c.err
			w := b.post("/v1/moderations", c.body, c.headers...)
			if e := bodyOf[openAIError](t, w); w.Code != c.status || e.Error.Type != c.kind || e.Error.Message == "" {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
}

func TestModerationsCountAgainstTheRate(t *testing.T) {
	b := setup(t, admit.Params{TasksPerSecond: 0.001, Burst: 1})
	if w := b.post("/v1/moderations", `{"input":"x"}`); w.Code != 200 {
		t.Fatalf("%d", w.Code)
	}
	if w := b.post("/v1/moderations", `{"input":"x"}`); w.Code != http.StatusTooManyRequests || len(b.judge.asked) != 1 {
		t.Errorf("%d, asked %d times", w.Code, len(b.judge.asked))
	}
}

func TestWithoutAFilterThereIsNoSuchRoute(t *testing.T) {
	b := setupAs(t, admit.Params{}, t.TempDir(), 0, func(d *httpapi.Deps) { d.Filter = nil })
	w := b.post("/v1/moderations", `{"input":"x"}`)
	if e := bodyOf[openAIError](t, w); w.Code != 404 || e.Error.Code == nil || *e.Error.Code != "unknown_url" || e.Error.Type != "invalid_request_error" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
