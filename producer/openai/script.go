package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// ErrInterrupted ends a stream whose answer began anew, or turned out to be
// another, after some of it was shown: a client would join the two.
var ErrInterrupted = errors.New("the answer began anew after some of it was shown")

// Script tells the events of one task in the form of the OpenAI API. It keeps
// what it has shown, so that an end can be told whole: what events have lost
// comes with the end, and an end that does not continue what was shown is
// ErrInterrupted.
type Script struct {
	head  Head
	usage bool
	shown []*shown // by choice
	held  bool     // events are lost: the rest comes with the end
}

// NewScript begins a stream; usage asks for the usage at its end.
func NewScript(h Head, usage bool) *Script { return &Script{head: h, usage: usage} }

// shown is what a client has of one choice.
type shown struct {
	text     []byte
	said     map[string]int // bytes of the message's other texts, by name
	tools    map[int]int    // bytes of arguments, by tool call
	logprobs map[string]int // items of each list
}

// Began reports whether anything of the answer was shown.
func (s *Script) Began() bool { return len(s.shown) > 0 }

// maxChoice bounds what an index may make us keep: n times prompts, at most.
const maxChoice = 128 * 2048

func (s *Script) choice(index int) *shown {
	for len(s.shown) <= index {
		s.shown = append(s.shown, nil)
	}
	if s.shown[index] == nil {
		s.shown[index] = &shown{said: map[string]int{}, tools: map[int]int{}, logprobs: map[string]int{}}
	}
	return s.shown[index]
}

func (s *Script) fresh(index int) bool { return index >= len(s.shown) || s.shown[index] == nil }

// Tell returns the chunk for an event that is no end; nil if there is nothing to
// tell. Err is ErrInterrupted when the answer begins anew.
func (s *Script) Tell(e event.Event) (chunk []byte, err error) {
	switch e.Type {
	case event.Delta:
		if s.held || e.Index < 0 || e.Index >= maxChoice {
			return nil, nil
		}
		return s.delta(e.Index, e.Text, e.Choice), nil
	case event.Restart:
		if s.Began() {
			return nil, ErrInterrupted
		}
		s.held = false
	case event.Gap:
		s.held = true
	case event.Snapshot:
		return s.snapshot(e.Text)
	}
	return nil, nil
}

// snapshot goes on with the text so far, if it is of the one choice there is:
// who cannot tell waits for the end.
func (s *Script) snapshot(text string) ([]byte, error) {
	if len(s.shown) > 1 {
		s.held = true
		return nil, nil
	}
	var had []byte
	if s.Began() {
		had = s.shown[0].text
	}
	rest, ok := strings.CutPrefix(text, string(had))
	if !ok {
		s.held = true
		return nil, nil
	}
	if rest == "" {
		return nil, nil
	}
	return s.delta(0, rest, nil), nil
}

// delta is a chunk with the next piece of a choice.
func (s *Script) delta(index int, text string, more json.RawMessage) []byte {
	var rest struct {
		Delta    members         `json:"delta"`
		LogProbs json.RawMessage `json:"logprobs"`
	}
	_ = json.Unmarshal(more, &rest) // nil, or written by a worker
	return s.piece(index, text, rest.Delta, rest.LogProbs)
}

func (s *Script) piece(index int, text string, said members, logprobs json.RawMessage) []byte {
	first := s.fresh(index)
	c := s.choice(index)
	c.note(text, said, logprobs)
	out := map[string]any{"index": index, "finish_reason": nil, "logprobs": nil}
	if logprobs != nil {
		out["logprobs"] = logprobs
	}
	if s.head.Kind != task.Chat {
		out["text"] = text
		return s.chunk([]any{out})
	}
	delta := members{}
	maps.Copy(delta, said)
	if first {
		delta["role"] = encode("assistant")
	}
	if text != "" || len(said) == 0 {
		delta["content"] = encode(text)
	}
	out["delta"] = delta
	return s.chunk([]any{out})
}

// chunkObject is what a chat calls a chunk.
const chunkObject = "chat.completion.chunk"

// chunk is one body of the stream.
func (s *Script) chunk(choices []any) []byte {
	b := s.head.body(chunkObject, choices)
	if s.usage {
		b.Usage = null()
	}
	return encode(b)
}

// toolPiece is what is counted of a piece of a tool call.
type toolPiece struct {
	Index    int `json:"index"`
	Function struct {
		Arguments string `json:"arguments"`
	} `json:"function"`
}

// note remembers what is shown.
func (c *shown) note(text string, said members, logprobs json.RawMessage) {
	c.text = append(c.text, text...)
	for name, v := range said {
		var words string
		if name != "tool_calls" && json.Unmarshal(v, &words) == nil {
			c.said[nameOf(name)] += len(words)
		}
	}
	var tools []toolPiece
	_ = json.Unmarshal(said["tool_calls"], &tools) // absent, or of this shape
	for _, t := range tools {
		c.tools[t.Index] += len(t.Function.Arguments)
	}
	for name, list := range lists(logprobs) {
		c.logprobs[name] += len(list)
	}
}

// nameOf gives an engine's reasoning one name: the one that whole answers have.
func nameOf(name string) string {
	if name == "reasoning" {
		return "reasoning_content"
	}
	return name
}

// lists are the members of logprobs that are lists.
func lists(logprobs json.RawMessage) map[string][]json.RawMessage {
	var m members
	_ = json.Unmarshal(logprobs, &m) // null and nothing have no members
	out := map[string][]json.RawMessage{}
	for name, v := range m {
		var list []json.RawMessage
		if json.Unmarshal(v, &list) == nil && list != nil {
			out[name] = list
		}
	}
	return out
}

// End returns the last chunks of a task that has succeeded: what was not shown
// yet, a finish_reason for every choice, and the usage if it is wanted.
func (s *Script) End(out *task.Output, usage *task.Usage) ([][]byte, error) {
	if out == nil {
		return nil, ErrShape
	}
	list, err := choices(s.head.Kind, out)
	if err != nil {
		return nil, err
	}
	if len(s.shown) > len(list) {
		return nil, ErrInterrupted
	}
	var chunks [][]byte
	for i, c := range list {
		rest, err := s.rest(i, c)
		if err != nil {
			return nil, err
		}
		if rest != nil {
			chunks = append(chunks, rest)
		}
		chunks = append(chunks, s.finish(i, c))
	}
	if s.usage {
		b := s.head.body(chunkObject, []any{})
		b.Usage = encode(usage)
		chunks = append(chunks, encode(b))
	}
	return chunks, nil
}

func (s *Script) finish(index int, c choice) []byte {
	out := map[string]any{"index": index, "finish_reason": c.finish(), "logprobs": nil}
	if s.head.Kind == task.Chat {
		out["delta"] = members{}
	} else {
		out["text"] = ""
	}
	return s.chunk([]any{out})
}

// rest is a chunk with what the client lacks of a choice; nil if it has all.
func (s *Script) rest(index int, c choice) ([]byte, error) {
	had := &shown{}
	if !s.fresh(index) {
		had = s.shown[index]
	}
	text, ok := bytes.CutPrefix([]byte(c.text), had.text)
	if !ok {
		return nil, ErrInterrupted
	}
	said, err := had.unsaid(c.message)
	if err != nil {
		return nil, err
	}
	logprobs := had.unlisted(c.members["logprobs"])
	if len(text) == 0 && len(said) == 0 && logprobs == nil && !s.fresh(index) {
		return nil, nil
	}
	return s.piece(index, string(text), said, logprobs), nil
}

// unsaid is what the client lacks of a message besides its content.
func (c *shown) unsaid(message members) (members, error) {
	out := members{}
	for name, v := range message {
		var words string
		if name == "role" || name == "content" || name == "tool_calls" || json.Unmarshal(v, &words) != nil || words == "" {
			continue
		}
		had := c.said[nameOf(name)]
		if had > len(words) {
			return nil, ErrInterrupted
		}
		if had < len(words) {
			out[name] = encode(words[had:])
		}
	}
	tools, err := c.uncalled(message["tool_calls"])
	if len(tools) > 0 {
		out["tool_calls"] = encode(tools)
	}
	return out, err
}

// uncalled is what the client lacks of the tool calls: whole ones, or the rest
// of their arguments.
func (c *shown) uncalled(raw json.RawMessage) ([]any, error) {
	var whole []members
	var sizes []toolPiece
	_ = json.Unmarshal(raw, &whole) // absent, null, or of this shape
	_ = json.Unmarshal(raw, &sizes)
	var out []any
	for i := range min(len(whole), len(sizes)) {
		arguments := sizes[i].Function.Arguments
		had, known := c.tools[i]
		switch {
		case !known:
			one := maps.Clone(whole[i])
			one["index"] = encode(i)
			out = append(out, one)
		case had > len(arguments):
			return nil, ErrInterrupted
		case had < len(arguments):
			out = append(out, map[string]any{"index": i, "function": map[string]string{"arguments": arguments[had:]}})
		}
	}
	return out, nil
}

// unlisted is what the client lacks of the log probabilities; nil: nothing.
func (c *shown) unlisted(raw json.RawMessage) json.RawMessage {
	all := lists(raw)
	short := false
	for name, list := range all {
		had := min(c.logprobs[name], len(list))
		all[name] = slices.Clone(list[had:])
		short = short || had < len(list)
	}
	if !short {
		return nil
	}
	return encode(all)
}
