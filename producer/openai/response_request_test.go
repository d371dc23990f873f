package openai_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/producer/openai"
	"github.com/penstock/penstock/schema/spec"
	"github.com/penstock/penstock/schema/task"
)

func TestAResponseIsAChat(t *testing.T) {
	p := parser(t)
	for name, tc := range map[string]struct {
		body, messages, params string
		class                  task.Class
		ignored                []string
	}{
		"a text": {
			`{"model":"m","input":"hi"}`, `[{"role":"user","content":"hi"}]`, `{}`, task.Interactive, nil,
		},
		"instructions come first, and what nobody waits for is not interactive": {
			`{"model":"m","input":"hi","instructions":"be brief","background":true,"store":null,"metadata":{"a":"b"},"service_tier":"auto","user":"u","include":["x"]}`,
			`[{"role":"system","content":"be brief"},{"role":"user","content":"hi"}]`, `{}`, task.Standard,
			[]string{"include", "service_tier", "user"},
		},
		"items": {
			`{"model":"m","input":[
			{"role":"developer","content":"d"},
			{"type":"message","role":"user","content":[{"type":"input_text","text":"a"},{"type":"text","text":"b"}]},
			{"type":"message","role":"user","content":[{"type":"input_text","text":"see"},{"type":"input_image","image_url":"data:x","detail":"low"}]},
			{"type":"reasoning","id":"rs_1","summary":[]},
			{"type":"message","id":"msg_1","role":"assistant","content":[{"type":"output_text","text":"so","annotations":[]},{"type":"refusal","refusal":" no"}]},
			{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"},
			{"type":"function_call","call_id":"c2","name":"g","arguments":"{\"a\":1}"},
			{"type":"function_call_output","call_id":"c1","output":"1"},
			{"type":"function_call_output","call_id":"c2","output":[{"type":"input_text","text":"2"}]}]}`,
			`[{"role":"system","content":"d"},{"role":"user","content":"ab"},
			{"role":"user","content":[{"type":"text","text":"see"},{"type":"image_url","image_url":{"url":"data:x","detail":"low"}}]},
			{"role":"assistant","content":"so no","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}},
			{"id":"c2","type":"function","function":{"name":"g","arguments":"{\"a\":1}"}}]},
			{"role":"tool","content":"1","tool_call_id":"c1"},{"role":"tool","content":"2","tool_call_id":"c2"}]`, `{}`, task.Interactive, nil,
		},
		"a call that the model made without a word": {
			`{"model":"m","input":[{"role":"user","content":"w"},{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}]}`,
			`[{"role":"user","content":"w"},{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]}]`, `{}`, task.Interactive, nil,
		},
		"functions, a schema and the rest of what shapes an answer": {
			`{"model":"m","input":"hi","max_output_tokens":7,"temperature":0.5,"top_p":1,"parallel_tool_calls":false,
			"tools":[{"type":"function","name":"f","parameters":{"type":"object"},"strict":true,"description":null}],"tool_choice":{"type":"function","name":"f"},
			"text":{"verbosity":"low","format":{"type":"json_schema","name":"n","schema":{"type":"object"},"strict":true}},"reasoning":{"effort":"low","summary":"auto"}}`,
			`[{"role":"user","content":"hi"}]`,
			`{"max_tokens":7,"temperature":0.5,"top_p":1,"parallel_tool_calls":false,"reasoning_effort":"low",
			"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"},"strict":true}}],"tool_choice":{"type":"function","function":{"name":"f"}},
			"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"},"strict":true}}}`,
			task.Interactive,
			[]string{"reasoning.summary", "text.verbosity"},
		},
		"what is said of tools goes with them": {
			`{"model":"m","input":"hi","tools":[],"tool_choice":"auto","parallel_tool_calls":true,"text":{"format":{"type":"json_object"}}}`,
			`[{"role":"user","content":"hi"}]`, `{"response_format":{"type":"json_object"}}`, task.Interactive, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := p.ParseResponse([]byte(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			sameJSON(t, tc.messages, c.Request.Payload.Messages)
			params, err := json.Marshal(c.Request.Params)
			if err != nil {
				t.Fatal(err)
			}
			sameJSON(t, tc.params, params)
			for name := range c.Request.Params {
				if !task.Chat.Takes(name) {
					t.Errorf("%s is not for an engine", name)
				}
			}
			if diff := cmp.Diff(tc.ignored, c.Ignored); diff != "" || c.Request.Class != tc.class || c.Kind != task.Chat || c.Request.Model != "m" {
				t.Errorf("%+v %s", c.Request, diff)
			}
		})
	}
}

func TestWhatAResponseCannotBeIsRefusedByName(t *testing.T) {
	p := parser(t)
	for body, path := range map[string]string{
		`{"input":"a"}`:                                             "model",
		`{"model":"m"}`:                                             "input",
		`{"model":"m","input":[]}`:                                  "input",
		`{"model":"m","input":7}`:                                   "input",
		`{"model":"m","input":"a","input":"b"}`:                     "input",
		`{"model":"m","input":"a","store":1}`:                       "store",
		`{"model":"m","input":"a","prompt":{}}`:                     "prompt",
		`{"model":"m","input":"a","tools":["f"]}`:                   "tools[0]",
		`{"model":"m","input":"a","conversation":"conv_1"}`:         "conversation",
		`{"model":"m","input":"a","background":true,"store":false}`: "background",
		`{"model":"m","input":"a","tools":[{"type":"function","name":"f"},{"type":"web_search"}]}`:     "tools[1].type",
		`{"model":"m","input":"a","tools":[{"type":"function"}]}`:                                      "tools[0].name",
		`{"model":"m","input":"a","tool_choice":{"type":"mcp"}}`:                                       "tool_choice",
		`{"model":"m","input":"a","text":{"format":{"type":"grammar"}}}`:                               "text.format.type",
		`{"model":"m","input":"a","text":{"format":{"type":"json_schema"}}}`:                           "text.format",
		`{"model":"m","input":[{"type":"reasoning","summary":[]}]}`:                                    "input",
		`{"model":"m","input":[{"type":"item_reference","id":"msg_1"}]}`:                               "input[0].type",
		`{"model":"m","input":[{"role":"user","content":"a"},{"role":"robot","content":"b"}]}`:         "input[1].role",
		`{"model":"m","input":[{"role":"user","content":null}]}`:                                       "input[0].content",
		`{"model":"m","input":[{"role":"user"}]}`:                                                      "input[0].content",
		`{"model":"m","input":[{"role":"user","content":[{"type":"input_file","file_id":"file-1"}]}]}`: "input[0].content[0].type",
		`{"model":"m","input":[{"role":"user","content":[{"type":"input_text"}]}]}`:                    "input[0].content[0].type",
		`{"model":"m","input":[{"type":"function_call","name":"f"}]}`:                                  "input[0]",
		`{"model":"m","input":[{"type":"function_call_output","output":"x"}]}`:                         "input[0].call_id",
		`{"model":"m","input":[{"type":7}]}`:                                                           "input[0]",
	} {
		_, err := p.ParseResponse([]byte(body))
		bad, ok := errors.AsType[*validate.Error](err)
		if !ok || bad.Path != path {
			t.Errorf("%s: %v, want a fault at %s", body, err, path)
		}
	}
}

func TestEarlierMessagesComeBetweenTheInstructionsAndTheInput(t *testing.T) {
	c, err := parser(t).ParseResponse([]byte(`{"model":"m","input":"and now?","instructions":"i"}`))
	if err != nil {
		t.Fatal(err)
	}
	c.Continue([]openai.Message{{Role: "user", Content: json.RawMessage(`"before"`)}})
	sameJSON(t, `[{"role":"system","content":"i"},{"role":"user","content":"before"},{"role":"user","content":"and now?"}]`, c.Request.Payload.Messages)
}

func FuzzParseResponse(f *testing.F) {
	f.Add(`{"model":"m","input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"a"}]},{"type":"function_call","call_id":"c","name":"f"}]}`)
	f.Add(`{"model":"m","input":"x","tools":[{"type":"function","name":"f"}],"tool_choice":"none","text":{"format":null},"reasoning":null}`)
	p, err := openai.NewParser(spec.FS)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body string) {
		c, err := p.ParseResponse([]byte(body))
		if err != nil {
			if _, ok := errors.AsType[*validate.Error](err); !ok {
				t.Errorf("%T: %v", err, err)
			}
			return
		}
		var messages []openai.Message
		if err := json.Unmarshal(c.Request.Payload.Messages, &messages); err != nil || len(messages) == 0 {
			t.Errorf("%v in %s", err, c.Request.Payload.Messages)
		}
		if _, err := json.Marshal(c.Kept); err != nil {
			t.Error(err)
		}
	})
}
