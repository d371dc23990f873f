package openaihttp

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/penstock/penstock/schema/task"
)

// answer is a whole answer, or one event of a stream.
type answer struct {
	Choices []json.RawMessage `json:"choices"`
	Data    []json.RawMessage `json:"data"`
	Usage   *task.Usage       `json:"usage"`
	Error   *apiError         `json:"error"`
}

// choice is what we read of one choice, of any form.
type choice struct {
	Index        int    `json:"index"`
	Text         string `json:"text"`
	FinishReason string `json:"finish_reason"` // null reads as empty
	Message      *said  `json:"message"`
	Delta        *said  `json:"delta"`

	LogProbs logprobs `json:"logprobs"`
}

type said struct {
	Content   string     `json:"content"` // null reads as empty
	ToolCalls []toolCall `json:"tool_calls"`
	Refusal   string     `json:"refusal"`
	Reasoning string     `json:"reasoning"`         // vLLM's newer name
	Thoughts  string     `json:"reasoning_content"` // everybody else's
}

func (s said) reasoning() string {
	if s.Thoughts != "" {
		return s.Thoughts
	}
	return s.Reasoning
}

// more reports whether the message has more than its content.
func (s said) more() bool { return len(s.ToolCalls) > 0 || s.Refusal != "" || s.reasoning() != "" }

type toolCall struct {
	Index    int    `json:"index"`
	ID       string `json:"id,omitempty"`
	Type     string `json:"type,omitempty"`
	Function struct {
		Name      string `json:"name,omitempty"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

func parseChoice(raw json.RawMessage) (choice, error) {
	var c choice
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, errors.New("a choice is not of the protocol's shape")
	}
	return c, nil
}

// text is the choice's text, in whichever member the form has it.
func (c choice) text() string {
	switch {
	case c.Delta != nil:
		return c.Delta.Content
	case c.Message != nil:
		return c.Message.Content
	}
	return c.Text
}

// output of a choice that is the whole answer; the raw form is kept where the
// text alone would lose something.
func (c choice) output(raw json.RawMessage) *task.Output {
	out := &task.Output{Text: c.text(), FinishReason: c.FinishReason}
	if c.Message != nil && c.Message.more() || c.LogProbs != nil {
		out.Choices = mustJSON([]json.RawMessage{raw})
	}
	return out
}

// output of an answer that belongs to one task.
func (a answer) output(t *task.Task) (*task.Output, error) {
	want := choicesOf(t)
	if len(a.Choices) != want {
		return nil, fmt.Errorf("%d choices, want %d", len(a.Choices), want)
	}
	seen := make([]bool, want)
	var first *task.Output
	for _, raw := range a.Choices {
		c, err := parseChoice(raw)
		if err != nil {
			return nil, err
		}
		if c.Index < 0 || c.Index >= want || seen[c.Index] {
			return nil, fmt.Errorf("choice index %d of %d, or twice", c.Index, want)
		}
		if c.FinishReason == "" {
			return nil, errors.New("a choice without finish_reason")
		}
		seen[c.Index] = true
		if c.Index == 0 {
			first = c.output(raw)
		}
	}
	if want > 1 {
		first.Choices = mustJSON(a.Choices)
	}
	return first, nil
}

// embeddings returns the vectors in the order of the inputs.
func (a answer) embeddings(want int) ([]json.RawMessage, error) {
	if len(a.Data) != want {
		return nil, fmt.Errorf("%d embeddings for %d inputs", len(a.Data), want)
	}
	out := make([]json.RawMessage, want)
	for _, raw := range a.Data {
		var d struct {
			Index     int             `json:"index"`
			Embedding json.RawMessage `json:"embedding"`
		}
		if err := json.Unmarshal(raw, &d); err != nil || d.Index < 0 || d.Index >= want || out[d.Index] != nil || len(d.Embedding) == 0 {
			return nil, errors.New("the embeddings' indexes do not fit the inputs")
		}
		out[d.Index] = d.Embedding
	}
	return out, nil
}
