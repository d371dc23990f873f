package webhook_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/webhook"
)

const id task.ID = "task_06eej948000ui6eipa8t38tsq3o4hnf467b19nog4sg5du0u"

var ended = time.Date(2026, 3, 14, 8, 1, 0, 0, time.UTC)

func end(s task.Status) *terminal.Terminal {
	return &terminal.Terminal{
		SchemaVersion: task.SchemaVersion, TaskID: id, Status: s, Tenant: "acme", Model: "sim-chat", Class: task.Standard,
		Labels: map[string]string{"order": "17"}, CreatedAt: ended.Add(-time.Minute), EndedAt: ended,
	}
}

func body(t *testing.T, e webhook.Event) (string, map[string]any) {
	t.Helper()
	text, err := e.Body()
	if err != nil {
		t.Fatal(err)
	}
	var read map[string]any
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	return string(text), read
}

func TestAnEventIsInTheFormOfTheOpenAIAPI(t *testing.T) {
	succeeded := end(task.Succeeded)
	succeeded.Output = &task.Output{Text: "a < b & c", FinishReason: "stop"}
	succeeded.Usage = &task.Usage{PromptTokens: 1, CompletionTokens: 2, TotalTokens: 3}
	_, got := body(t, webhook.NewEvent(succeeded, 1, "/v1/tasks/"+string(id)))
	want := map[string]any{
		"id": "evt_06eej948000ui6eipa8t38tsq3o4hnf467b19nog4sg5du0u_1", "object": "event", "type": "task.succeeded",
		"created_at": float64(ended.Unix()),
		"data": map[string]any{
			"id": string(id), "status": "succeeded", "generation": 1.0, "model": "sim-chat", "class": "standard",
			"output": map[string]any{"text": "a < b & c", "finish_reason": "stop"},
			"usage":  map[string]any{"prompt_tokens": 1.0, "completion_tokens": 2.0, "total_tokens": 3.0},
			"labels": map[string]any{"order": "17"}, "created_at": "2026-03-14T08:00:00Z", "ended_at": "2026-03-14T08:01:00Z",
			"status_url": "/v1/tasks/" + string(id),
		},
	}
	if diff := cmp.Diff(any(want), any(got)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestEachEndHasATypeOfItsOwn(t *testing.T) {
	var types []string
	for _, s := range task.Statuses() {
		if !s.Terminal() {
			continue
		}
		e := end(s)
		e.Error = &terminal.Error{Code: fault.Rejected, Message: "no"}
		types = append(types, webhook.NewEvent(e, 0, "/x").Type)
	}
	if diff := cmp.Diff(webhook.Types(task.FormTask), types); diff != "" {
		t.Errorf("(-Types +got)\n%s", diff)
	}
	if slices.Sort(types); len(slices.Compact(types)) != 5 {
		t.Errorf("types %v", types)
	}
}

func TestALargeOutputIsLeftToALink(t *testing.T) {
	for name, c := range map[string]struct {
		output  *task.Output
		ref     *task.Ref
		omitted bool
	}{
		"a small one":           {output: &task.Output{Text: "hello"}},
		"one at the limit":      {output: &task.Output{Text: strings.Repeat("<", webhook.MaxInline-1000)}},
		"one beyond it":         {output: &task.Output{Text: strings.Repeat("<", webhook.MaxInline)}, omitted: true},
		"one in the blob store": {ref: &task.Ref{Key: "a", Bytes: 1 << 20}, omitted: true},
		"none":                  {},
	} {
		t.Run(name, func(t *testing.T) {
			e := end(task.Succeeded)
			e.Output, e.OutputRef = c.output, c.ref
			text, got := body(t, webhook.NewEvent(e, 0, "/v1/tasks/x"))
			data, _ := got["data"].(map[string]any)
			if omitted, _ := data["output_omitted"].(bool); omitted != c.omitted {
				t.Errorf("omitted %t", omitted)
			}
			if inline := data["output"] != nil; inline != (c.output != nil && !c.omitted) {
				t.Errorf("inline %t", inline)
			}
			if len(text) > webhook.MaxInline || data["status_url"] != "/v1/tasks/x" {
				t.Errorf("%d bytes, status_url %v", len(text), data["status_url"])
			}
		})
	}
}

func TestAWebhookWantsWhatItNames(t *testing.T) {
	all, one := &task.Webhook{}, &task.Webhook{Events: []string{"task.dead", "task.failed"}}
	for _, kind := range webhook.Types(task.FormTask) {
		if !webhook.Wants(all, kind) {
			t.Errorf("who names none does not want %s", kind)
		}
		if got := webhook.Wants(one, kind); got != slices.Contains(one.Events, kind) {
			t.Errorf("wants %s: %t", kind, got)
		}
	}
}

func TestAResponseIsToldAsTheOpenAIAPIDoes(t *testing.T) {
	finished := func(reason string) *terminal.Terminal {
		e := end(task.Succeeded)
		e.Output = &task.Output{Text: "hi", FinishReason: reason}
		return e
	}
	away := func(reason string) *terminal.Terminal {
		e := end(task.Succeeded)
		e.OutputRef, e.FinishReason = &task.Ref{Key: "a", Bytes: 1 << 20}, reason
		return e
	}
	seen := map[string]bool{}
	for name, c := range map[string]struct {
		end  *terminal.Terminal
		want string
	}{
		"a whole answer":             {finished("stop"), webhook.ResponseCompleted},
		"one with calls of tools":    {finished("tool_calls"), webhook.ResponseCompleted},
		"one in the blob store":      {away("stop"), webhook.ResponseCompleted},
		"one of an older worker":     {away(""), webhook.ResponseCompleted},
		"a stored one cut by it":     {away("length"), webhook.ResponseIncomplete},
		"a stored one filtered":      {away("content_filter"), webhook.ResponseIncomplete},
		"one cut by its limit":       {finished("length"), webhook.ResponseIncomplete},
		"one cut by a filter":        {finished("content_filter"), webhook.ResponseIncomplete},
		"one that was refused":       {end(task.Failed), webhook.ResponseFailed},
		"one that was given up":      {end(task.Dead), webhook.ResponseFailed},
		"one that came too late":     {end(task.Expired), webhook.ResponseFailed},
		"one its caller has stopped": {end(task.Cancelled), webhook.ResponseCancelled},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := webhook.BodyOf(task.FormResponse, c.end, 1, "/v1/tasks/x")
			if err != nil {
				t.Fatal(err)
			}
			var got any
			if err := json.Unmarshal(text, &got); err != nil {
				t.Fatal(err)
			}
			want := map[string]any{
				"id": "evt_06eej948000ui6eipa8t38tsq3o4hnf467b19nog4sg5du0u_1", "object": "event", "type": c.want,
				"created_at": float64(ended.Unix()), "data": map[string]any{"id": "resp_06eej948000ui6eipa8t38tsq3o4hnf467b19nog4sg5du0u"},
			}
			if diff := cmp.Diff(any(want), got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			seen[c.want] = true
		})
	}
	for _, kind := range webhook.Types(task.FormResponse) {
		if !seen[kind] {
			t.Errorf("no end is told as %s", kind)
		}
	}
}

func TestABatchIsToldAsTheOpenAIAPIDoes(t *testing.T) {
	var kinds []string
	for _, status := range []string{"completed", "failed", "expired", "cancelled"} {
		kind := webhook.BatchType(status)
		text, err := webhook.BatchBody(webhook.BatchData{ID: "batch_1", Status: status}, ended)
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			ID, Object, Type string
			CreatedAt        int64 `json:"created_at"`
			Data             webhook.BatchData
		}
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if got.ID != "evt_1_0" || got.Object != "event" || got.Type != kind || got.CreatedAt != ended.Unix() || got.Data.ID != "batch_1" {
			t.Errorf("%s", text)
		}
		kinds = append(kinds, kind)
	}
	if diff := cmp.Diff(webhook.BatchTypes(), kinds); diff != "" {
		t.Errorf("(-BatchTypes +got)\n%s", diff)
	}
}
