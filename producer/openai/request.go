package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// Call is a request as a task.
type Call struct {
	Kind    task.Kind
	Request *api.SubmitRequest
	Base64  bool     // embeddings are wanted in base64
	Usage   bool     // a stream is wanted to end with the usage
	Ignored []string // members that were given and do nothing here, sorted
}

// Parser reads requests. It is safe for concurrent use.
type Parser struct {
	schemas  map[task.Kind]*validate.Schema
	response *validate.Schema
}

// schemaNames are the documents that bodies are held to.
func schemaNames() map[task.Kind]string {
	return map[task.Kind]string{task.Chat: "chat", task.Completion: "completion", task.Embedding: "embedding"}
}

// NewParser compiles chat, completion, embedding and response.schema.json.
func NewParser(schemas fs.FS) (*Parser, error) {
	set, err := validate.Compile(schemas)
	if err != nil {
		return nil, fmt.Errorf("compile request schemas: %w", err)
	}
	p := &Parser{schemas: map[task.Kind]*validate.Schema{}}
	var errs []error
	for kind, name := range schemaNames() {
		schema, err := set.Schema(name)
		p.schemas[kind], errs = schema, append(errs, err)
	}
	p.response, err = set.Schema("response")
	errs = append(errs, err)
	return p, errors.Join(errs...)
}

// members is a body, its values as the caller wrote them. What is null is not
// there: SDKs write it for what was not given.
type members map[string]json.RawMessage

func (m members) flag(name string) bool { return string(m[name]) == "true" }

// Parse reads the body of a request. A model that the path names stands for the
// body's own. Errors are *validate.Error.
func (p *Parser) Parse(k task.Kind, body []byte, model string) (Call, error) {
	var m members
	if err := p.schemas[k].Decode(body, &m); err != nil {
		return Call{}, err
	}
	maps.DeleteFunc(m, func(_ string, v json.RawMessage) bool { return string(v) == "null" })
	c := Call{Kind: k, Request: &api.SubmitRequest{Class: task.Interactive, Params: task.Params{}, Model: model}}
	if model == "" {
		_ = json.Unmarshal(m["model"], &c.Request.Model) // a string, by the schema
	}
	if c.Request.Model == "" {
		return Call{}, &validate.Error{Code: fault.Malformed, Path: "model", Offset: -1, Reason: "is required"}
	}
	c.Request.Payload = payloadOf(k, m)
	_ = json.Unmarshal(m["webhook"], &c.Request.Webhook) // absent, or of this shape by the schema
	c.params(m)
	if k == task.Embedding {
		c.Base64 = string(m["encoding_format"]) == `"base64"`
		return c, nil
	}
	c.Request.Stream = m.flag("stream")
	if k == task.Chat {
		_ = json.Unmarshal(m["session_id"], &c.Request.SessionID) // absent, or a string by the schema
		c.Request.Memory = m.flag("memory")
	}
	var options struct {
		IncludeUsage bool `json:"include_usage"`
	}
	_ = json.Unmarshal(m["stream_options"], &options) // absent, or of this shape by the schema
	c.Usage = options.IncludeUsage
	return c, nil
}

// question is the member that holds what is asked.
func question(k task.Kind) string {
	switch k {
	case task.Chat:
		return "messages"
	case task.Embedding:
		return "input"
	default:
		return "prompt"
	}
}

// params sorts the members into those that an engine gets to see and those that
// are ignored.
func (c *Call) params(m members) {
	for name, v := range m {
		switch {
		case c.Kind.Takes(name):
			c.Request.Params[name] = v
		case name == "model", name == question(c.Kind), name == "stream", name == "stream_options", name == "webhook":
		case c.Kind == task.Chat && (name == "session_id" || name == "memory"):
		default:
			c.Ignored = append(c.Ignored, name)
		}
	}
	slices.Sort(c.Ignored)
}

// payloadOf is what is asked: one text, or the list of prompts or token ids.
func payloadOf(k task.Kind, m members) task.Payload {
	raw := m[question(k)]
	if k == task.Chat {
		return task.Payload{Messages: raw}
	}
	var text string
	if json.Unmarshal(raw, &text) == nil && text != "" {
		return task.Payload{Text: text}
	}
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil || len(list) == 0 {
		return task.Payload{Inputs: []json.RawMessage{raw}} // the empty text
	}
	if first := bytes.TrimLeft(list[0], " \t\r\n"); first[0] != '"' && first[0] != '[' {
		return task.Payload{Inputs: []json.RawMessage{raw}} // one prompt, of token ids
	}
	return task.Payload{Inputs: list}
}

// ParamOf names a member of a request by the path that a fault of its task has.
func ParamOf(k task.Kind, path string) string {
	for _, form := range []string{"payload.messages", "payload.inputs", "payload.text"} {
		if rest, ok := strings.CutPrefix(path, form); ok {
			return question(k) + rest
		}
	}
	if path == "payload" {
		return question(k)
	}
	return strings.TrimPrefix(path, "params.")
}
