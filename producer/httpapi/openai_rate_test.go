package httpapi_test

import (
	"testing"

	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/schema/task"
)

func TestAnswersTellHowTheirTenantStands(t *testing.T) {
	b := setup(t, admit.Params{TasksPerSecond: 0.001, Burst: 2})
	b.winner = succeededAs(&task.Output{Text: "hi", FinishReason: "stop"})
	for i, want := range []struct {
		status           int
		limit, remaining string
	}{{200, "2", "1"}, {200, "2", "0"}, {429, "2", "0"}} {
		w := b.post("/v1/chat/completions", chatBody)
		h := w.Header()
		if w.Code != want.status || h.Get("X-Ratelimit-Limit-Requests") != want.limit || h.Get("X-Ratelimit-Remaining-Requests") != want.remaining ||
			h.Get("X-Ratelimit-Reset-Requests") == "" {
			t.Errorf("call %d: %d %v", i, w.Code, h)
		}
	}
	if h := b.post("/v1/inference", `{"model":"sim-chat","payload":{"text":"hi"}}`).Header(); h.Get("X-Ratelimit-Limit-Requests") != "" {
		t.Errorf("a native route tells %v", h)
	}
}

func TestWithoutARateNoneIsTold(t *testing.T) {
	b := setup(t, admit.Params{})
	b.winner = succeededAs(&task.Output{Text: "hi", FinishReason: "stop"})
	if h := b.post("/v1/chat/completions", chatBody).Header(); h.Get("X-Ratelimit-Limit-Requests") != "" || h.Get("X-Ratelimit-Remaining-Requests") != "" {
		t.Errorf("%v", h)
	}
}
