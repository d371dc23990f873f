package openai

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// ResponseRequest is what a response keeps of its request: the members that it
// repeats, and its input as items.
type ResponseRequest struct {
	At    int64             `json:"created_at"` // Unix seconds
	Echo  ResponseEcho      `json:"echo"`
	Input []json.RawMessage `json:"input"`
}

// ResponseEcho is the members of a response that are its request's own, with the
// defaults of those that were not given.
type ResponseEcho struct {
	Background        bool            `json:"background"`
	Instructions      *string         `json:"instructions"`
	MaxOutputTokens   json.RawMessage `json:"max_output_tokens"`
	Metadata          json.RawMessage `json:"metadata"`
	Model             string          `json:"model"`
	ParallelToolCalls json.RawMessage `json:"parallel_tool_calls"`
	Previous          *string         `json:"previous_response_id"`
	Reasoning         json.RawMessage `json:"reasoning"`
	Store             bool            `json:"store"`
	Temperature       json.RawMessage `json:"temperature"`
	Text              json.RawMessage `json:"text"`
	ToolChoice        json.RawMessage `json:"tool_choice"`
	Tools             json.RawMessage `json:"tools"`
	TopP              json.RawMessage `json:"top_p"`
	Truncation        json.RawMessage `json:"truncation"`
	User              json.RawMessage `json:"user"`
}

// ResponseCall is a request of the Responses API as a task, whose messages are
// those of the request alone until Continue adds to them.
type ResponseCall struct {
	Call
	Kept *ResponseRequest

	messages []Message
}

// ParseResponse reads the body of POST /v1/responses. Errors are
// *validate.Error, with the paths of the body.
func (p *Parser) ParseResponse(body []byte) (*ResponseCall, error) {
	var m members
	if err := p.response.Decode(body, &m); err != nil {
		return nil, err
	}
	maps.DeleteFunc(m, func(_ string, v json.RawMessage) bool { return string(v) == "null" })
	kept, err := keep(m)
	if err != nil {
		return nil, err
	}
	c := &ResponseCall{Kept: kept}
	if c.messages, err = messagesOf(kept.Input); err != nil {
		return nil, err
	}
	if len(c.messages) == 0 {
		return nil, badMember("input", "has nothing to answer")
	}
	c.Call = Call{Kind: task.Chat, Request: &api.SubmitRequest{
		Class: task.Interactive, Model: kept.Echo.Model, Stream: m.flag("stream"), Params: task.Params{},
	}}
	_ = json.Unmarshal(m["webhook"], &c.Request.Webhook) // absent, or of this shape by the schema
	if w := c.Request.Webhook; w != nil {
		w.Form = task.FormResponse
	}
	if kept.Echo.Background {
		c.Request.Class = task.Standard // nobody waits on a connection for it
	}
	if err := c.shape(m); err != nil {
		return nil, err
	}
	c.Continue(nil)
	return c, nil
}

// Continue puts the messages of earlier responses before those of the request,
// and its instructions before all.
func (c *ResponseCall) Continue(earlier []Message) {
	all := make([]Message, 0, len(earlier)+len(c.messages)+1)
	if said := c.Kept.Echo.Instructions; said != nil && *said != "" {
		all = append(all, Message{Role: "system", Content: encode(*said)})
	}
	c.Request.Payload = task.Payload{Messages: encode(append(append(all, earlier...), c.messages...))}
}

// keep takes what is kept of a request out of its members, and refuses what
// would mean something else without what is not done here.
func keep(m members) (*ResponseRequest, error) {
	for _, name := range []string{"conversation", "prompt"} {
		if m[name] != nil {
			return nil, badMember(name, "is not served here; send the items themselves, or previous_response_id")
		}
	}
	r := &ResponseRequest{Echo: ResponseEcho{
		Background: m.flag("background"), Store: string(m["store"]) != "false",
		MaxOutputTokens: m.or("max_output_tokens", "null"), Metadata: m.or("metadata", "{}"), ParallelToolCalls: m.or("parallel_tool_calls", "true"),
		Reasoning: m.or("reasoning", `{"effort":null,"summary":null}`), Temperature: m.or("temperature", "1"), Text: m.or("text", `{"format":{"type":"text"}}`),
		ToolChoice: m.or("tool_choice", `"auto"`), Tools: m.or("tools", "[]"), TopP: m.or("top_p", "1"), Truncation: m.or("truncation", `"disabled"`), User: m.or("user", "null"),
	}}
	_ = json.Unmarshal(m["model"], &r.Echo.Model) // strings, by the schema
	_ = json.Unmarshal(m["instructions"], &r.Echo.Instructions)
	_ = json.Unmarshal(m["previous_response_id"], &r.Echo.Previous)
	if r.Echo.Background && !r.Echo.Store {
		return nil, badMember("background", "needs store: what is not stored cannot be asked for later")
	}
	var said string
	if json.Unmarshal(m["input"], &said) == nil {
		r.Input = []json.RawMessage{encode(map[string]string{"type": "message", "role": "user", "content": said})}
		return r, nil
	}
	_ = json.Unmarshal(m["input"], &r.Input) // a list, by the schema
	return r, nil
}

// or is a member, or what it is when it was not given.
func (m members) or(name, otherwise string) json.RawMessage {
	if v := m[name]; v != nil {
		return v
	}
	return json.RawMessage(otherwise)
}

// shape sorts the members into parameters of the chat, those that the response
// repeats, and those that are ignored.
func (c *ResponseCall) shape(m members) error {
	for name, v := range m {
		var err error
		switch name {
		case "temperature", "top_p", "parallel_tool_calls":
			c.Request.Params[name] = v
		case "max_output_tokens":
			c.Request.Params["max_tokens"] = v // the name that every engine knows
		case "tools":
			err = c.tools(v)
		case "tool_choice":
			err = c.toolChoice(v)
		case "text":
			err = c.format(v)
		case "reasoning":
			c.reasoning(v)
		case "input", "model", "instructions", "metadata", "store", "background", "stream", "stream_options", "previous_response_id", "truncation",
			"webhook":
		default:
			c.Ignored = append(c.Ignored, name)
		}
		if err != nil {
			return err
		}
	}
	if c.Request.Params["tools"] == nil { // engines refuse these without tools
		delete(c.Request.Params, "tool_choice")
		delete(c.Request.Params, "parallel_tool_calls")
	}
	slices.Sort(c.Ignored)
	return nil
}

// tools nests the functions as a chat has them.
func (c *ResponseCall) tools(raw json.RawMessage) error {
	var flat []struct {
		Type        string          `json:"type"`
		Name        string          `json:"name"`
		Description json.RawMessage `json:"description"`
		Parameters  json.RawMessage `json:"parameters"`
		Strict      json.RawMessage `json:"strict"`
	}
	_ = json.Unmarshal(raw, &flat) // of this shape by the schema
	nested := make([]any, len(flat))
	for i, t := range flat {
		if t.Type != "function" {
			return badMember(fmt.Sprintf("tools[%d].type", i), "only function tools are run here")
		}
		if t.Name == "" {
			return badMember(fmt.Sprintf("tools[%d].name", i), "is required")
		}
		function := members{"name": encode(t.Name)}
		function.give("description", t.Description)
		function.give("parameters", t.Parameters)
		function.give("strict", t.Strict)
		nested[i] = map[string]any{"type": "function", "function": function}
	}
	if len(nested) > 0 {
		c.Request.Params["tools"] = encode(nested)
	}
	return nil
}

// give adds a member that was given.
func (m members) give(name string, v json.RawMessage) {
	if v != nil && !bytes.Equal(v, null()) {
		m[name] = v
	}
}

func (c *ResponseCall) toolChoice(raw json.RawMessage) error {
	var named struct{ Type, Name string }
	switch {
	case raw[0] == '"':
		c.Request.Params["tool_choice"] = raw
	case json.Unmarshal(raw, &named) == nil && named.Type == "function" && named.Name != "":
		c.Request.Params["tool_choice"] = encode(map[string]any{"type": "function", "function": map[string]string{"name": named.Name}})
	default:
		return badMember("tool_choice", "must be none, auto, required or one function")
	}
	return nil
}

// format asks a chat for JSON, if the text is to be.
func (c *ResponseCall) format(raw json.RawMessage) error {
	var text struct {
		Format    members         `json:"format"`
		Verbosity json.RawMessage `json:"verbosity"`
	}
	_ = json.Unmarshal(raw, &text) // of this shape by the schema
	if text.Verbosity != nil && !bytes.Equal(text.Verbosity, null()) {
		c.Ignored = append(c.Ignored, "text.verbosity")
	}
	var kind string
	_ = json.Unmarshal(text.Format["type"], &kind)
	switch kind {
	case "", "text":
	case "json_object":
		c.Request.Params["response_format"] = encode(map[string]string{"type": kind})
	case "json_schema":
		schema := members{}
		for _, name := range []string{"name", "description", "schema", "strict"} {
			schema.give(name, text.Format[name])
		}
		if schema["name"] == nil || schema["schema"] == nil {
			return badMember("text.format", "needs a name and a schema")
		}
		c.Request.Params["response_format"] = encode(map[string]any{"type": kind, kind: schema})
	default:
		return badMember("text.format.type", "must be text, json_object or json_schema")
	}
	return nil
}

func (c *ResponseCall) reasoning(raw json.RawMessage) {
	var m members
	_ = json.Unmarshal(raw, &m) // an object, by the schema
	for name, v := range m {
		switch {
		case bytes.Equal(v, null()):
		case name == "effort":
			c.Request.Params["reasoning_effort"] = v
		default:
			c.Ignored = append(c.Ignored, "reasoning."+name)
		}
	}
}

func badMember(path, reason string) error {
	return &validate.Error{Code: fault.Malformed, Path: path, Offset: -1, Reason: reason}
}

// ResponseParamOf names a member of a response's request by the path that a
// fault of its task has.
func ResponseParamOf(path string) string {
	switch name := ParamOf(task.Chat, path); name {
	case "messages":
		return "input"
	case "max_tokens":
		return "max_output_tokens"
	default:
		return name
	}
}
