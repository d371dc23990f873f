package openai

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Message is one message of a chat.
type Message struct {
	Role       string          `json:"role"`
	Content    json.RawMessage `json:"content"` // a text, parts, or null beside calls
	ToolCalls  []ToolCall      `json:"tool_calls,omitempty"`
	ToolCallID string          `json:"tool_call_id,omitempty"`
}

// ToolCall is a function that the model has called, as a chat has it.
type ToolCall struct {
	ID       string `json:"id"`
	Type     string `json:"type"`
	Function struct {
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

// inputItem is what is read of an item of the input.
type inputItem struct {
	Type      string          `json:"type"`
	ID        string          `json:"id"`
	Role      string          `json:"role"`
	Content   json.RawMessage `json:"content"`
	CallID    string          `json:"call_id"`
	Name      string          `json:"name"`
	Arguments string          `json:"arguments"`
	Output    json.RawMessage `json:"output"`
}

// messagesOf makes the messages of a chat of items. Calls that follow one another,
// or an assistant's words, are of one message. Reasoning is passed over.
func messagesOf(items []json.RawMessage) ([]Message, error) {
	var out []Message
	for i, raw := range items {
		path := fmt.Sprintf("input[%d]", i)
		var it inputItem
		if err := json.Unmarshal(raw, &it); err != nil {
			return nil, badMember(path, "is no item of the API")
		}
		var err error
		switch {
		case it.Type == "message", it.Type == "" && it.Role != "":
			var m Message
			m, err = it.message(path)
			out = append(out, m)
		case it.Type == "function_call":
			out, err = it.call(path, out)
		case it.Type == "function_call_output":
			var m Message
			m, err = it.result(path)
			out = append(out, m)
		case it.Type == "reasoning":
		default:
			err = badMember(path+".type", "must be message, function_call, function_call_output or reasoning")
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (it inputItem) message(path string) (Message, error) {
	m := Message{Role: it.Role}
	switch it.Role {
	case "user", "assistant", "system":
	case "developer":
		m.Role = "system" // few templates of engines know the other
	default:
		return m, badMember(path+".role", "must be user, assistant, system or developer")
	}
	var err error
	m.Content, err = contentOf(it.Content, path+".content")
	return m, err
}

// contentOf is a text where that is all, else the parts as a chat has them.
func contentOf(raw json.RawMessage, path string) (json.RawMessage, error) {
	var text string
	if len(raw) > 0 && json.Unmarshal(raw, &text) == nil && raw[0] == '"' {
		return raw, nil
	}
	var parts []json.RawMessage
	if len(raw) == 0 || json.Unmarshal(raw, &parts) != nil || parts == nil {
		return nil, badMember(path, "must be a text or a list of parts")
	}
	out := make([]any, len(parts))
	var words strings.Builder
	plain := true
	for i, raw := range parts {
		text, image, err := partOf(raw, fmt.Sprintf("%s[%d]", path, i))
		if err != nil {
			return nil, err
		}
		if image != nil {
			plain, out[i] = false, image
			continue
		}
		words.WriteString(text)
		out[i] = map[string]string{"type": "text", "text": text}
	}
	if plain {
		return encode(words.String()), nil
	}
	return encode(out), nil
}

// partOf is a part of a message: words, or an image.
func partOf(raw json.RawMessage, path string) (words string, image any, err error) {
	var p struct {
		Type    string  `json:"type"`
		Text    *string `json:"text"`
		Refusal *string `json:"refusal"`
		URL     string  `json:"image_url"`
		Detail  string  `json:"detail"`
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		return "", nil, badMember(path, "is no part of the API")
	}
	switch {
	case (p.Type == "input_text" || p.Type == "output_text" || p.Type == "text") && p.Text != nil:
		return *p.Text, nil, nil
	case p.Type == "refusal" && p.Refusal != nil:
		return *p.Refusal, nil, nil
	case p.Type == "input_image" && p.URL != "":
		url := map[string]string{"url": p.URL}
		if p.Detail != "" {
			url["detail"] = p.Detail
		}
		return "", map[string]any{"type": "image_url", "image_url": url}, nil
	}
	return "", nil, badMember(path+".type", "must be input_text, output_text, refusal or an input_image with image_url, with its content")
}

// call adds a call to what the assistant said before it.
func (it inputItem) call(path string, out []Message) ([]Message, error) {
	if it.CallID == "" || it.Name == "" {
		return nil, badMember(path, "a function_call needs call_id and name")
	}
	if n := len(out); n == 0 || out[n-1].Role != "assistant" {
		out = append(out, Message{Role: "assistant", Content: null()})
	}
	one := ToolCall{ID: it.CallID, Type: "function"}
	one.Function.Name, one.Function.Arguments = it.Name, it.Arguments
	last := &out[len(out)-1]
	last.ToolCalls = append(last.ToolCalls, one)
	return out, nil
}

func (it inputItem) result(path string) (Message, error) {
	if it.CallID == "" {
		return Message{}, badMember(path+".call_id", "is required")
	}
	content, err := contentOf(it.Output, path+".output")
	return Message{Role: "tool", ToolCallID: it.CallID, Content: content}, err
}

// Size is how many bytes of content a message has.
func (m Message) Size() int {
	n := len(m.Content) + len(m.ToolCallID)
	for _, c := range m.ToolCalls {
		n += len(c.ID) + len(c.Function.Name) + len(c.Function.Arguments)
	}
	return n
}
