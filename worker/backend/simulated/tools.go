package simulated

import (
	"encoding/json"
	"strconv"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend"
)

// A chat that offers tools is answered with one call of the first of them, whose
// only argument "text" is the answer there would have been. One whose last
// message is a tool's result, or that wants no tool, is answered in words.

// toolCall is a call, or a piece of one.
type toolCall struct {
	Index    int    `json:"index"`
	ID       string `json:"id,omitempty"`
	Type     string `json:"type,omitempty"`
	Function struct {
		Name      string `json:"name,omitempty"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

// toolOf is the function that a chat gets called; empty: none.
func toolOf(p task.Params, messages string) string {
	var tools []struct {
		Function struct {
			Name string `json:"name"`
		} `json:"function"`
	}
	if json.Unmarshal(p["tools"], &tools) != nil || len(tools) == 0 || string(p["tool_choice"]) == `"none"` {
		return ""
	}
	var said []struct {
		Role string `json:"role"`
	}
	if json.Unmarshal([]byte(messages), &said) == nil && len(said) > 0 && said[len(said)-1].Role == "tool" {
		return ""
	}
	return tools[0].Function.Name
}

// opening is a call without its arguments.
func (c call) opening() toolCall {
	out := toolCall{ID: "call_" + strconv.FormatUint(hash(c.prompt), 36), Type: "function"}
	out.Function.Name = c.tool
	return out
}

// calling is the choice of an answer that is a call.
func (c call) calling(index int, text string, finish *string) chatChoice {
	one := c.opening()
	one.Function.Arguments = `{"text":"` + text + `"}` // words alone: nothing to escape
	return chatChoice{Index: index, Message: &message{Role: "assistant", ToolCalls: []toolCall{one}}, FinishReason: finish}
}

// piece is a token of a choice: of its text, or of the call it makes.
func (c call) piece(index, i int, token string) backend.Piece {
	if c.tool == "" {
		return backend.Piece{Text: token, Index: index}
	}
	part := toolCall{}
	if i == 0 {
		part = c.opening()
		token = `{"text":"` + token
	}
	if i == c.tokens-1 {
		token += `"}`
	}
	part.Function.Arguments = token
	return backend.Piece{Index: index, Choice: marshal(map[string]any{"delta": map[string]any{"tool_calls": []toolCall{part}}})}
}

// pieceChunk is a piece as the protocol streams it.
func pieceChunk(model string, kind task.Kind, p backend.Piece) any {
	if p.Choice == nil {
		return chunk(model, kind, p.Index, p.Text, nil)
	}
	c := map[string]json.RawMessage{}
	_ = json.Unmarshal(p.Choice, &c) // written by piece
	c["index"], c["finish_reason"] = marshal(p.Index), json.RawMessage("null")
	return map[string]any{"id": "sim", "object": "chat.completion.chunk", "created": 0, "model": model, "choices": []any{c}}
}
