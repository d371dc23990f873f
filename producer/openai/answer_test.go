package openai_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/producer/openai"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

func head(k task.Kind) openai.Head {
	return openai.Head{Kind: k, ID: "task_1", Model: "m", At: time.Unix(7, 0)}
}

// sameJSON compares documents whatever the order of their members.
func sameJSON(t *testing.T, want string, got []byte) {
	t.Helper()
	var w, g any
	if err := errors.Join(json.Unmarshal([]byte(want), &w), json.Unmarshal(got, &g)); err != nil {
		t.Fatalf("%v in %s", err, got)
	}
	if diff := cmp.Diff(w, g); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestAnAnswerHasTheFormOfTheProtocol(t *testing.T) {
	usage := &task.Usage{PromptTokens: 1, CompletionTokens: 2, TotalTokens: 3}
	for name, tc := range map[string]struct {
		kind   task.Kind
		base64 bool
		out    task.Output
		want   string
	}{
		"a chat": {
			task.Chat, false,
			task.Output{Text: "<hi>", FinishReason: "length"},
			`{"id":"chatcmpl-1","object":"chat.completion","created":7,"model":"m","usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3},
			"choices":[{"index":0,"message":{"role":"assistant","content":"<hi>","refusal":null},"logprobs":null,"finish_reason":"length"}]}`,
		},
		"choices in any order, with what they have beside their text": {
			task.Chat, false,
			task.Output{Text: "a", FinishReason: "stop", Choices: json.RawMessage(`[
			{"index":4,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"c"}]},"finish_reason":"tool_calls","logprobs":{"content":[]}},
			{"index":3,"message":{"content":"a","reasoning_content":"r"},"finish_reason":"stop"}]`)},
			`{"id":"chatcmpl-1","object":"chat.completion","created":7,"model":"m","usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3},
			"choices":[{"index":0,"message":{"role":"assistant","content":"a","refusal":null,"reasoning_content":"r"},"logprobs":null,"finish_reason":"stop"},
			{"index":1,"message":{"role":"assistant","content":null,"refusal":null,"tool_calls":[{"id":"c"}]},"logprobs":{"content":[]},"finish_reason":"tool_calls"}]}`,
		},
		"a completion": {
			task.Completion, false,
			task.Output{Text: "hi", FinishReason: "stop"},
			`{"id":"cmpl-1","object":"text_completion","created":7,"model":"m","usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3},
			"choices":[{"index":0,"text":"hi","logprobs":null,"finish_reason":"stop"}]}`,
		},
		"any JSON of a JSON batch backend": {
			task.Completion, false,
			task.Output{Value: json.RawMessage(`{"label":"x"}`), FinishReason: "stop"},
			`{"id":"cmpl-1","object":"text_completion","created":7,"model":"m","usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3},
			"choices":[{"index":0,"text":"{\"label\":\"x\"}","logprobs":null,"finish_reason":"stop"}]}`,
		},
		"embeddings, in base64 although the engine sent numbers": {
			task.Embedding, true,
			task.Output{Embeddings: json.RawMessage(`[[1,-2],"AACAPw=="]`)},
			`{"object":"list","model":"m","usage":{"prompt_tokens":1,"total_tokens":3},
			"data":[{"object":"embedding","index":0,"embedding":"AACAPwAAAMA="},{"object":"embedding","index":1,"embedding":"AACAPw=="}]}`,
		},
		"embeddings, in numbers although the engine sent base64": {
			task.Embedding, false,
			task.Output{Embeddings: json.RawMessage(`["AACAPwAAAMA=",[0.5]]`)},
			`{"object":"list","model":"m","usage":{"prompt_tokens":1,"total_tokens":3},
			"data":[{"object":"embedding","index":0,"embedding":[1,-2]},{"object":"embedding","index":1,"embedding":[0.5]}]}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := openai.Answer(head(tc.kind), tc.base64, &tc.out, usage)
			if err != nil {
				t.Fatal(err)
			}
			sameJSON(t, tc.want, got)
			if strings.Contains(string(got), "\\u003c") {
				t.Errorf("escaped for HTML: %s", got)
			}
		})
	}
}

func TestWhatIsNoAnswerIsNotMadeOne(t *testing.T) {
	for name, tc := range map[string]struct {
		kind task.Kind
		out  *task.Output
	}{
		"nothing":                     {task.Chat, nil},
		"choices that are none":       {task.Chat, &task.Output{Choices: json.RawMessage(`7`)}},
		"no choices":                  {task.Chat, &task.Output{Choices: json.RawMessage(`[]`)}},
		"a null choice":               {task.Chat, &task.Output{Choices: json.RawMessage(`[null]`)}},
		"a choice that has not ended": {task.Chat, &task.Output{Choices: json.RawMessage(`[{"index":0,"message":{"content":"a"},"finish_reason":null}]`)}},
		"a chat without message":      {task.Chat, &task.Output{Choices: json.RawMessage(`[{"index":0,"text":"a","finish_reason":"stop"}]`)}},
		"a text that is none":         {task.Completion, &task.Output{Choices: json.RawMessage(`[{"index":0,"text":7,"finish_reason":"stop"}]`)}},
		"no vectors":                  {task.Embedding, &task.Output{Text: "a"}},
		"a vector of words":           {task.Embedding, &task.Output{Embeddings: json.RawMessage(`[["a"]]`)}},
	} {
		if got, err := openai.Answer(head(tc.kind), true, tc.out, nil); !errors.Is(err, openai.ErrShape) {
			t.Errorf("%s: %s, %v", name, got, err)
		}
		if tc.kind == task.Embedding {
			continue
		}
		if got, err := openai.NewScript(head(tc.kind), false).End(tc.out, nil); !errors.Is(err, openai.ErrShape) {
			t.Errorf("%s, streamed: %s, %v", name, got, err)
		}
	}
}

func TestAFailureHasAllFourMembersAndAStatusThatClientsKnow(t *testing.T) {
	for name, tc := range map[string]struct {
		got    openai.Failure
		status int
		want   string
	}{
		"an unknown model": {
			openai.NewFailure(404, "not_found", "no", "model"), 404,
			`{"error":{"message":"no","type":"invalid_request_error","param":"model","code":"model_not_found"}}`,
		},
		"no key": {
			openai.NewFailure(401, "unauthorized", "no", ""), 401,
			`{"error":{"message":"no","type":"authentication_error","param":null,"code":"invalid_api_key"}}`,
		},
		"too many": {
			openai.NewFailure(429, "throttled", "no", ""), 429,
			`{"error":{"message":"no","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"}}`,
		},
		"a status that clients do not know": {
			openai.NewFailure(501, "", "no", ""), 500,
			`{"error":{"message":"no","type":"server_error","param":null,"code":null}}`,
		},
		"an input that the engine refused": {
			openai.FailureOf(task.Failed, &terminal.Error{Code: fault.Rejected, Status: 422, Message: "no"}), 422,
			`{"error":{"message":"no","type":"invalid_request_error","param":null,"code":"rejected"}}`,
		},
		"an engine that refused us": {
			openai.FailureOf(task.Dead, &terminal.Error{Code: fault.Unauthorized, Status: 403, Message: "no"}), 503,
			`{"error":{"message":"no","type":"server_error","param":null,"code":"unauthorized"}}`,
		},
		"a deadline": {
			openai.FailureOf(task.Expired, &terminal.Error{Message: "no"}), 504,
			`{"error":{"message":"no","type":"server_error","param":null,"code":"expired"}}`,
		},
		"a cancel": {
			openai.FailureOf(task.Cancelled, &terminal.Error{Code: fault.Cancelled}), 409,
			`{"error":{"message":"cancelled","type":"invalid_request_error","param":null,"code":"cancelled"}}`,
		},
		"an end that does not say why": {
			openai.FailureOf(task.Dead, nil), 500,
			`{"error":{"message":"the task ended as dead and does not say why","type":"server_error","param":null,"code":"internal"}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.got.Status != tc.status {
				t.Errorf("status %d, want %d", tc.got.Status, tc.status)
			}
			sameJSON(t, tc.want, tc.got.Body())
		})
	}
}

func TestEveryFaultHasAStatusOfTheProtocol(t *testing.T) {
	known := map[int]bool{400: true, 401: true, 403: true, 404: true, 405: true, 409: true, 413: true, 422: true, 429: true, 500: true, 503: true, 504: true}
	for _, code := range fault.Codes() {
		if f := openai.FailureOf(task.Dead, &terminal.Error{Code: code}); !known[f.Status] || f.Code == nil {
			t.Errorf("%s is %d", code, f.Status)
		}
	}
}
