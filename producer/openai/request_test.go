package openai_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/producer/openai"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/spec"
	"github.com/penstock/penstock/schema/task"
)

func parser(tb testing.TB) *openai.Parser {
	tb.Helper()
	p, err := openai.NewParser(spec.FS)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// asText compares JSON by its text.
func asText() cmp.Option {
	return cmp.Transformer("text", func(r json.RawMessage) string { return string(r) })
}

func TestARequestIsATask(t *testing.T) {
	p := parser(t)
	for name, tc := range map[string]struct {
		kind  task.Kind
		body  string
		model string
		want  openai.Call
	}{
		"a chat, with what engines take and what they do not": {
			task.Chat, `{"model":"m","messages":[{"role":"user","content":"hi"}],"n":2,"tools":[{"a":1}],"seed":1.0,"stream":true,
			"stream_options":{"include_usage":true},"user":"u","metadata":{"a":"b"},"cache_salt":"x","stop":null,"max_tokens":null}`, "",
			openai.Call{
				Usage: true, Ignored: []string{"cache_salt", "metadata", "user"},
				Request: &api.SubmitRequest{
					Model: "m", Stream: true, Payload: task.Payload{Messages: json.RawMessage(`[{"role":"user","content":"hi"}]`)},
					Params: task.Params{"n": json.RawMessage("2"), "tools": json.RawMessage(`[{"a":1}]`), "seed": json.RawMessage("1.0")},
				},
			},
		},
		"a chat of a session": {
			task.Chat, `{"model":"m","messages":[{"role":"user"}],"session_id":"s-1"}`, "",
			openai.Call{Request: &api.SubmitRequest{Model: "m", SessionID: "s-1", Payload: task.Payload{Messages: json.RawMessage(`[{"role":"user"}]`)}}},
		},
		"a chat that remembers": {
			task.Chat, `{"model":"m","messages":[{"role":"user"}],"session_id":"s-1","memory":true}`, "",
			openai.Call{Request: &api.SubmitRequest{Model: "m", SessionID: "s-1", Memory: true, Payload: task.Payload{Messages: json.RawMessage(`[{"role":"user"}]`)}}},
		},
		"a completion, which is of no session": {
			task.Completion, `{"model":"m","prompt":"a","session_id":"s-1","memory":true}`, "",
			openai.Call{Ignored: []string{"memory", "session_id"}, Request: &api.SubmitRequest{Model: "m", Payload: task.Payload{Text: "a"}}},
		},
		"a chat of no session": {
			task.Chat, `{"model":"m","messages":[{"role":"user"}],"session_id":null}`, "",
			openai.Call{Request: &api.SubmitRequest{Model: "m", Payload: task.Payload{Messages: json.RawMessage(`[{"role":"user"}]`)}}},
		},
		"a prompt": {
			task.Completion, `{"model":"m","prompt":"a","stream":false,"stream_options":null}`, "",
			openai.Call{Request: &api.SubmitRequest{Model: "m", Payload: task.Payload{Text: "a"}}},
		},
		"no text at all": {
			task.Completion, `{"model":"m","prompt":""}`, "",
			openai.Call{Request: &api.SubmitRequest{Model: "m", Payload: task.Payload{Inputs: []json.RawMessage{json.RawMessage(`""`)}}}},
		},
		"several prompts, and a model that the path names": {
			task.Completion, `{"model":"other","prompt":["a","b"]}`, "m",
			openai.Call{Request: &api.SubmitRequest{Model: "m", Payload: task.Payload{Inputs: []json.RawMessage{json.RawMessage(`"a"`), json.RawMessage(`"b"`)}}}},
		},
		"one prompt of token ids": {
			task.Completion, `{"model":"m","prompt":[ 1,2]}`, "",
			openai.Call{Request: &api.SubmitRequest{Model: "m", Payload: task.Payload{Inputs: []json.RawMessage{json.RawMessage(`[ 1,2]`)}}}},
		},
		"several of token ids": {
			task.Embedding, `{"model":"m","input":[[1,2],[3]],"encoding_format":"base64","dimensions":8}`, "",
			openai.Call{Base64: true, Request: &api.SubmitRequest{
				Model: "m", Payload: task.Payload{Inputs: []json.RawMessage{json.RawMessage(`[1,2]`), json.RawMessage(`[3]`)}},
				Params: task.Params{"encoding_format": json.RawMessage(`"base64"`), "dimensions": json.RawMessage("8")},
			}},
		},
		"an embedding is never streamed": {
			task.Embedding, `{"model":"m","input":"a","stream":true}`, "",
			openai.Call{Request: &api.SubmitRequest{Model: "m", Payload: task.Payload{Text: "a"}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := p.Parse(tc.kind, []byte(tc.body), tc.model)
			if err != nil {
				t.Fatal(err)
			}
			tc.want.Kind, tc.want.Request.Class = tc.kind, task.Interactive
			if tc.want.Request.Params == nil {
				tc.want.Request.Params = task.Params{}
			}
			if diff := cmp.Diff(tc.want, got, asText()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestABodyIsRefusedByTheMemberThatIsWrong(t *testing.T) {
	p := parser(t)
	for body, path := range map[string]string{
		`{"messages":[{"role":"user"}]}`:                                   "model",
		`{"model":"m"}`:                                                    "messages",
		`{"model":"m","messages":[]}`:                                      "messages",
		`{"model":"m","messages":"hi"}`:                                    "messages",
		`{"model":"m","messages":[{"content":"hi"}]}`:                      "messages[0].role",
		`{"model":"m","messages":[{"role":"user"}],"n":0}`:                 "n",
		`{"model":"m","messages":[{"role":"user"}],"n":129}`:               "n",
		`{"model":"m","messages":[{"role":"user"}],"stream":"yes"}`:        "stream",
		`{"model":"m","messages":[{"role":"user"}],"stream_options":[]}`:   "stream_options",
		`{"model":"m","model":"n","messages":[{"role":"user"}]}`:           "model",
		`{"model":null,"messages":[{"role":"user"}]}`:                      "model",
		`{"model":"m","messages":[{"role":"user"}],"session_id":""}`:       "session_id",
		`{"model":"m","messages":[{"role":"user"}],"Stream":true,"a":[}]}`: "a[0]",
	} {
		_, err := p.Parse(task.Chat, []byte(body), "")
		v, ok := err.(*validate.Error)
		if !ok || v.Code != fault.Malformed || v.Path != path && !strings.Contains(body, "[}") {
			t.Errorf("%s: %v; want an offence of %s", body, err, path)
		}
	}
	if _, err := p.Parse(task.Completion, []byte(`{"model":null,"prompt":"a"}`), ""); err == nil {
		t.Error("a completion without any model was taken")
	}
}

func TestAFaultNamesTheCallersMember(t *testing.T) {
	for path, want := range map[string]string{
		"payload.messages[0].role": "messages[0].role", "payload.inputs": "messages", "payload.text": "messages", "payload": "messages",
		"params.n": "n", "model": "model", "": "",
	} {
		if got := openai.ParamOf(task.Chat, path); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
	if got := openai.ParamOf(task.Embedding, "payload.inputs"); got != "input" {
		t.Errorf("got %s", got)
	}
	if got := openai.ParamOf(task.Completion, "payload.text"); got != "prompt" {
		t.Errorf("got %s", got)
	}
}

func FuzzParse(f *testing.F) {
	p := parser(f)
	f.Add([]byte(`{"model":"m","messages":[{"role":"user","content":"hi"}],"n":2}`), byte(0))
	f.Add([]byte(`{"model":"m","prompt":[[1,2],[3]],"user":"x"}`), byte(1))
	f.Add([]byte(`{"model":"m","input":["a"],"encoding_format":"base64"}`), byte(2))
	f.Fuzz(func(t *testing.T, body []byte, k byte) {
		kind := []task.Kind{task.Chat, task.Completion, task.Embedding}[k%3]
		c, err := p.Parse(kind, body, "")
		if err != nil {
			if _, ok := err.(*validate.Error); !ok {
				t.Fatalf("an error without a code: %v", err)
			}
			return
		}
		if c.Request.Model == "" || c.Request.Payload.Text == "" && c.Request.Payload.Messages == nil && c.Request.Payload.Inputs == nil {
			t.Errorf("%s made %+v", body, c.Request)
		}
		if _, err := json.Marshal(c.Request); err != nil {
			t.Error(err)
		}
	})
}
