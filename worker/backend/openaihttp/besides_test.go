package openaihttp_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend"
	"github.com/penstock/penstock/worker/backend/backendtest"
	"github.com/penstock/penstock/worker/backend/openaihttp"
	"github.com/penstock/penstock/worker/backend/simulated"
)

// pieces runs a streamed task and returns what it emitted.
func pieces(t *testing.T, b backend.Backend, of *task.Task) (backend.Outcome, []backend.Piece) {
	t.Helper()
	var got []backend.Piece
	o := b.Run(t.Context(), []backend.Item{{Task: of, Emit: func(p backend.Piece) { got = append(got, p) }}})[0]
	if o.Err != nil {
		t.Fatal(o.Err)
	}
	return o, got
}

func TestAStreamEmitsWhatIsNoText(t *testing.T) {
	event := func(choice string) string { return `data: {"choices":[` + choice + "]}\n\n" }
	b := serve(t, sse(
		event(`{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}`)+
			event(`{"index":0,"delta":{"content":"a","refusal":null},"logprobs":{"content":[{"token":"a","logprob":-1}],"refusal":null}}`)+
			event(`{"index":0,"delta":{"content":"b"},"logprobs":null}`)+
			event(`{"index":0,"delta":{"refusal":"no"},"logprobs":{"content":null}}`)+
			event("{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c1\",\"function\":{\"name\":\"f\",\"arguments\":\"\xff\"}}]}}")+
			event(`{"index":0,"delta":{"content":"c"},"logprobs":{"content":[{"token":"c","logprob":-2}]},"finish_reason":"stop"}`)), openaihttp.Params{})
	o, got := pieces(t, b, backendtest.Task(task.Chat, "x", 5, true))
	want := []backend.Piece{
		{Text: "a", Choice: json.RawMessage(`{"logprobs":{"content":[{"token":"a","logprob":-1}],"refusal":null}}`)},
		{Text: "b"},
		{Choice: json.RawMessage(`{"delta":{"refusal":"no"}}`)},
		{Choice: json.RawMessage(`{"delta":{"tool_calls":[{"index":0,"id":"c1","function":{"name":"f","arguments":"` + "\uFFFD" + `"}}]}}`)},
		{Text: "c", Choice: json.RawMessage(`{"logprobs":{"content":[{"token":"c","logprob":-2}]}}`)},
	}
	if diff := cmp.Diff(want, got, cmp.Transformer("text", func(r json.RawMessage) string { return string(r) })); diff != "" {
		t.Errorf("pieces (-want +got)\n%s", diff)
	}
	if out := string(o.Output.Choices); !strings.Contains(out, `"logprobs":{"content":[{"token":"a","logprob":-1},{"token":"c","logprob":-2}]}`) {
		t.Errorf("the whole answer is %s", out)
	}
}

func TestLogprobsOfACompletionAreJoinedByTheirLists(t *testing.T) {
	b := serve(t, sse(
		`data: {"choices":[{"index":0,"text":"a","logprobs":{"tokens":["a"],"token_logprobs":[-1],"top_logprobs":null,"text_offset":[0]}}]}`+"\n\n"+
			`data: {"choices":[{"index":0,"text":"b","logprobs":{"tokens":["b"],"token_logprobs":[null],"text_offset":[1]},"finish_reason":"stop"}]}`+"\n\n"+
			`data: {"choices":[{"index":0,"text":"","logprobs":7}]}`+"\n\n"), openaihttp.Params{})
	o, got := pieces(t, b, backendtest.Task(task.Completion, "x", 5, true))
	if len(got) != 2 || !strings.Contains(string(got[1].Choice), `"token_logprobs":[null]`) {
		t.Errorf("pieces %+v", got)
	}
	if want := `"logprobs":{"text_offset":[0,1],"token_logprobs":[-1,null],"tokens":["a","b"]}`; !strings.Contains(string(o.Output.Choices), want) {
		t.Errorf("choices %s lack %s", o.Output.Choices, want)
	}
}

func TestTheSimulatedEngineCallsTools(t *testing.T) {
	b := serve(t, simulated.New(simulated.Params{}).Handler(), openaihttp.Params{})
	offering := func(stream bool, params ...string) *task.Task {
		of := backendtest.Task(task.Chat, "weather", 3, stream)
		of.Params["tools"] = json.RawMessage(`[{"type":"function","function":{"name":"look_up"}}]`)
		for i := 0; i < len(params); i += 2 {
			of.Params[params[i]] = json.RawMessage(params[i+1])
		}
		return of
	}
	want := `"arguments":` + quoted(`{"text":"`+backendtest.Answer(offering(false), 3)+`"}`)
	plain, _ := pieces(t, b, offering(false))
	streamed, got := pieces(t, b, offering(true))
	for name, o := range map[string]backend.Outcome{"whole": plain, "streamed": streamed} {
		out := string(o.Output.Choices)
		if o.Output.FinishReason != "tool_calls" || !strings.Contains(out, want) || !strings.Contains(out, `"name":"look_up"`) {
			t.Errorf("%s: %+v %s, want %s", name, o.Output, out, want)
		}
	}
	if len(got) != 3 || got[0].Text != "" || !strings.Contains(string(got[0].Choice), `"id":"call_`) {
		t.Errorf("streamed as %+v", got)
	}
	if words, _ := pieces(t, b, offering(true, "tool_choice", `"none"`)); words.Output.FinishReason != "stop" || words.Output.Text == "" {
		t.Errorf("a chat that wants no tool: %+v", words.Output)
	}
}

func quoted(s string) string {
	raw, _ := json.Marshal(s) // text is always JSON
	return string(raw)
}
