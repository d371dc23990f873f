package openai

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/penstock/penstock/schema/task"
)

// outputItem is one item of an output: a message, or a call of a function. Its
// id is made of the task's, so it is the same in every stream and every answer.
type outputItem struct {
	id     string
	call   int // which call of the chat it is; -1: a message
	callID string
	name   string
	text   []byte        // a call's arguments
	parts  []*outputPart // of a message, in the order they came
}

// outputPart is the words of a message, or its refusal.
type outputPart struct {
	refusal bool
	text    []byte
}

func newMessage(id task.ID) *outputItem { return &outputItem{id: "msg_" + suffixOf(id), call: -1} }

func newCall(id task.ID, n int, callID, name string) *outputItem {
	nth := suffixOf(id) + "_" + strconv.Itoa(n)
	if callID == "" {
		callID = "call_" + nth
	}
	return &outputItem{id: "fc_" + nth, call: n, callID: callID, name: name}
}

// part is the part of a message of one sort; nil if it has none.
func (it *outputItem) part(refusal bool) (*outputPart, int) {
	for i, p := range it.parts {
		if p.refusal == refusal {
			return p, i
		}
	}
	return nil, -1
}

// chatMessage is what is read of a message of a whole answer.
type chatMessage struct {
	Refusal   string     `json:"refusal"`
	ToolCalls []ToolCall `json:"tool_calls"`
}

// outputOf is the output of a task that has succeeded: its message, if it says
// anything or calls nothing, then its calls.
func outputOf(id task.ID, out *task.Output) (items []*outputItem, finish string, err error) {
	if out == nil {
		return nil, "", ErrShape
	}
	list, err := choices(task.Chat, out)
	if err != nil {
		return nil, "", err
	}
	c := list[0]
	var said chatMessage
	if err := json.Unmarshal(encode(c.message), &said); err != nil {
		return nil, "", fmt.Errorf("%w: message", ErrShape)
	}
	m := newMessage(id)
	if c.text != "" || said.Refusal == "" && len(said.ToolCalls) == 0 {
		m.parts = append(m.parts, &outputPart{text: []byte(c.text)})
	}
	if said.Refusal != "" {
		m.parts = append(m.parts, &outputPart{refusal: true, text: []byte(said.Refusal)})
	}
	if len(m.parts) > 0 {
		items = append(items, m)
	}
	for i, one := range said.ToolCalls {
		it := newCall(id, i, one.ID, one.Function.Name)
		it.text = []byte(one.Function.Arguments)
		items = append(items, it)
	}
	return items, c.finish(), nil
}

// json is the item as the API has it, in a state.
func (it *outputItem) json(status string) json.RawMessage {
	if it.call >= 0 {
		return encode(map[string]any{
			"id": it.id, "type": "function_call", "status": status, "call_id": it.callID, "name": it.name, "arguments": string(it.text),
		})
	}
	parts := make([]json.RawMessage, len(it.parts))
	for i, p := range it.parts {
		parts[i] = p.json()
	}
	return encode(map[string]any{"id": it.id, "type": "message", "status": status, "role": "assistant", "content": parts})
}

func (p *outputPart) json() json.RawMessage {
	if p.refusal {
		return encode(map[string]any{"type": "refusal", "refusal": string(p.text)})
	}
	return encode(map[string]any{"type": "output_text", "text": string(p.text), "annotations": []any{}, "logprobs": []any{}})
}

// answerOf is an output as a message of a chat.
func answerOf(items []*outputItem) Message {
	m := Message{Role: "assistant", Content: null()}
	for _, it := range items {
		if it.call >= 0 {
			one := ToolCall{ID: it.callID, Type: "function"}
			one.Function.Name, one.Function.Arguments = it.name, string(it.text)
			m.ToolCalls = append(m.ToolCalls, one)
			continue
		}
		var words []byte
		for _, p := range it.parts {
			words = append(words, p.text...)
		}
		m.Content = encode(string(words))
	}
	return m
}
