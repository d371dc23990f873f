package conversation

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/penstock/penstock/schema/task"
)

// message is one of ours, as the OpenAI API has it.
type message struct {
	Role      string            `json:"role"`
	Content   *string           `json:"content"` // null beside tool calls
	ToolCalls []json.RawMessage `json:"tool_calls,omitempty"`
	Refusal   string            `json:"refusal,omitempty"`
}

type choice struct {
	Index   int      `json:"index"`
	Message *message `json:"message"`
}

// Instruct is the message that a session's instructions are.
func Instruct(text string) (json.RawMessage, error) {
	return encode(message{Role: "system", Content: &text})
}

// Answer is the message that an output is remembered as: its first choice, less
// what a model thought for itself.
func Answer(o *task.Output) (json.RawMessage, error) {
	m := message{Role: "assistant", Content: &o.Text}
	for _, c := range choicesOf(o) {
		if c.Index == 0 && c.Message != nil {
			m.ToolCalls, m.Refusal = c.Message.ToolCalls, c.Message.Refusal
		}
	}
	if o.Text == "" && (len(m.ToolCalls) > 0 || m.Refusal != "") {
		m.Content = nil
	}
	return encode(m)
}

// choicesOf reads the choices of an output; those of another shape than a chat's
// say nothing that its text does not.
func choicesOf(o *task.Output) []choice {
	var out []choice
	if json.Unmarshal(o.Choices, &out) != nil {
		return nil
	}
	return out
}

func encode(m message) (json.RawMessage, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false) // as in records
	if err := enc.Encode(m); err != nil {
		return nil, fmt.Errorf("encode message: %w", err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// Tokens is how many tokens an answer has: as the backend counted them, if it
// counted this one alone, else a guess.
func Tokens(o *task.Output, u *task.Usage, answer json.RawMessage) int {
	if u != nil && u.CompletionTokens > 0 && len(choicesOf(o)) <= 1 {
		return u.CompletionTokens
	}
	return Guess(len(answer))
}

// Guess is how many tokens a text of so many bytes has that nobody counted: one
// for four bytes, rounded up.
func Guess(bytes int) int { return (bytes + 3) / 4 }
