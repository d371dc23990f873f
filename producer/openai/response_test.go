package openai_test

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/producer/openai"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/spec"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// responseOf is the response that a body asks for.
func responseOf(tb testing.TB, body string) openai.Response {
	tb.Helper()
	c, err := parser(tb).ParseResponse([]byte(body))
	if err != nil {
		tb.Fatal(err)
	}
	c.Kept.At = 7
	return openai.Response{Task: "task_1", Request: c.Kept}
}

func endedAt(second int64) *time.Time {
	at := time.Unix(second, 0)
	return &at
}

// members picks some members of a document.
func membersOf(t *testing.T, doc []byte, names ...string) map[string]any {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal(doc, &all); err != nil {
		t.Fatalf("%v in %s", err, doc)
	}
	out := map[string]any{}
	for _, name := range names {
		out[name] = all[name]
	}
	return out
}

func TestAWholeResponse(t *testing.T) {
	r := responseOf(t, `{"model":"m","input":"hi","max_output_tokens":9,"metadata":{"a":"b"},"previous_response_id":"resp_0","tools":[{"type":"function","name":"f"}],"top_p":null}`)
	got := r.Body(api.Task{
		Status: task.Succeeded, EndedAt: endedAt(9), Usage: &task.Usage{PromptTokens: 1, CompletionTokens: 2, TotalTokens: 3},
		Output: &task.Output{Choices: json.RawMessage(`[{"index":0,"finish_reason":"tool_calls","message":{"content":"<a>","tool_calls":[
			{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}},{"id":"c2","function":{"name":"f","arguments":"{}"}}]}}]`)},
	})
	sameJSON(t, `{"id":"resp_1","object":"response","created_at":7,"status":"completed","completed_at":9,"error":null,"incomplete_details":null,
	"background":false,"instructions":null,"max_output_tokens":9,"metadata":{"a":"b"},"model":"m","parallel_tool_calls":true,"previous_response_id":"resp_0",
	"reasoning":{"effort":null,"summary":null},"store":true,"temperature":1,"text":{"format":{"type":"text"}},"tool_choice":"auto",
	"tools":[{"type":"function","name":"f"}],"top_p":1,"truncation":"disabled","user":null,
	"output":[{"id":"msg_1","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"<a>","annotations":[],"logprobs":[]}]},
	{"id":"fc_1_0","type":"function_call","status":"completed","call_id":"c1","name":"f","arguments":"{}"},
	{"id":"fc_1_1","type":"function_call","status":"completed","call_id":"c2","name":"f","arguments":"{}"}],
	"usage":{"input_tokens":1,"input_tokens_details":{"cached_tokens":0,"cache_write_tokens":0},"output_tokens":2,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":3}}`, got)
}

func TestTheStateOfAResponseIsThatOfItsTask(t *testing.T) {
	r := responseOf(t, `{"model":"m","input":"hi","background":true}`)
	for name, tc := range map[string]struct {
		task api.Task
		want string
	}{
		"queued":           {api.Task{Status: task.Queued}, `{"status":"queued"}`},
		"not heard of yet": {api.Task{Status: task.Pending}, `{"status":"queued"}`},
		"running":          {api.Task{Status: task.Running}, `{"status":"in_progress"}`},
		"cancelled":        {api.Task{Status: task.Cancelled, Error: &terminal.Error{Code: fault.Cancelled}}, `{"status":"cancelled","error":null}`},
		"cut short": {
			api.Task{Status: task.Succeeded, Output: &task.Output{Text: "a", FinishReason: "length"}, EndedAt: endedAt(9)},
			`{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"completed_at":null}`,
		},
		"filtered": {
			api.Task{Status: task.Succeeded, Output: &task.Output{Text: "a", FinishReason: "content_filter"}},
			`{"status":"incomplete","incomplete_details":{"reason":"content_filter"}}`,
		},
		"refused by the engine": {
			api.Task{Status: task.Failed, Error: &terminal.Error{Code: fault.Rejected, Message: "no", Status: 400}},
			`{"status":"failed","error":{"code":"invalid_prompt","type":"rejected","message":"no","param":null},"output":[]}`,
		},
		"given up": {
			api.Task{Status: task.Dead, Error: &terminal.Error{Code: fault.Unavailable, Message: "no"}},
			`{"status":"failed","error":{"code":"server_error","type":"unavailable","message":"no","param":null}}`,
		},
		"too late": {
			api.Task{Status: task.Expired},
			`{"status":"failed","error":{"code":"server_error","type":"expired","message":"the task ended as expired and does not say why","param":null}}`,
		},
		"with an answer that is none": {
			api.Task{Status: task.Succeeded, Output: &task.Output{Choices: json.RawMessage(`[]`)}},
			`{"status":"failed","error":{"code":"server_error","type":"internal","message":"the engine's answer is not of the protocol's shape","param":null}}`,
		},
		"whose output was lost": {
			api.Task{Status: task.Succeeded, Error: &terminal.Error{Code: fault.BlobLost, Message: "lost"}},
			`{"status":"failed","error":{"code":"server_error","type":"blob_lost","message":"lost","param":null}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var want map[string]any
			if err := json.Unmarshal([]byte(tc.want), &want); err != nil {
				t.Fatal(err)
			}
			names := make([]string, 0, len(want))
			for name := range want {
				names = append(names, name)
			}
			got, err := json.Marshal(membersOf(t, r.Body(tc.task), names...))
			if err != nil {
				t.Fatal(err)
			}
			sameJSON(t, tc.want, got)
		})
	}
}

func TestAnIDLeadsFromAResponseToItsTaskAndBack(t *testing.T) {
	m, err := task.NewMinter(task.Secret{Number: 1, Key: []byte("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	id := m.New("acme", time.Now())
	if got, ok := openai.ResponseTask(openai.ResponseID(id)); !ok || got != id {
		t.Errorf("%q, %t", got, ok)
	}
	for _, other := range []string{"", "resp_", string(id), "resp_1", "resp_" + string(id), openai.ResponseID(id) + "0"} {
		if got, ok := openai.ResponseTask(other); ok {
			t.Errorf("%q is %q", other, got)
		}
	}
}

func TestAConversationGoesOnFromInputAndOutput(t *testing.T) {
	r := responseOf(t, `{"model":"m","input":"hi","instructions":"not carried over"}`)
	got, ok, err := r.Messages(api.Task{Status: task.Succeeded, Output: &task.Output{Choices: json.RawMessage(
		`[{"finish_reason":"tool_calls","message":{"content":"a","tool_calls":[{"id":"c","function":{"name":"f","arguments":"{}"}}]}}]`)}})
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	raw, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	sameJSON(t, `[{"role":"user","content":"hi"},{"role":"assistant","content":"a","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]}]`, raw)
	for _, status := range []task.Status{task.Running, task.Failed, task.Cancelled} {
		if _, ok, err := r.Messages(api.Task{Status: status}); ok || err != nil {
			t.Errorf("%s: %t, %v", status, ok, err)
		}
	}
}

func TestTheDocumentedResponseIsTheOneThatIsWritten(t *testing.T) {
	raw, err := spec.FS.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]any `json:"properties"`
			} `json:"schemas"`
		} `json:"components"`
	}
	var written map[string]any
	body := responseOf(t, `{"model":"m","input":"hi"}`).Accepted()
	if err := errors.Join(json.Unmarshal(raw, &doc), json.Unmarshal(body, &written)); err != nil {
		t.Fatal(err)
	}
	names := func(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }
	if diff := cmp.Diff(names(written), names(doc.Components.Schemas["ResponseObject"].Properties)); diff != "" {
		t.Errorf("(-written +documented)\n%s", diff)
	}
}
