package openai

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/penstock/penstock/schema/task"
)

// ErrShape is returned for an output that is not of the protocol's shape: an engine's fault
// that nobody has seen before.
var ErrShape = errors.New("the output is not of the protocol's shape")

// choice is one choice of a whole answer, its members as the engine wrote them.
type choice struct {
	members members
	message members // of a chat; nil of a completion
	text    string
}

// choices reads the choices of an output, in their order.
func choices(k task.Kind, out *task.Output) ([]choice, error) {
	if out.Choices == nil {
		return []choice{plainChoice(k, out)}, nil
	}
	var raws []members
	if err := json.Unmarshal(out.Choices, &raws); err != nil || len(raws) == 0 {
		return nil, fmt.Errorf("%w: choices", ErrShape)
	}
	list := make([]choice, len(raws))
	for i, m := range raws {
		var err error
		if list[i], err = readChoice(k, m); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(list, func(a, b choice) int { return cmp.Compare(a.index(), b.index()) })
	for i := range list { // a choice that shared a call has the index that it had there
		list[i].members["index"] = encode(i)
	}
	return list, nil
}

// plainChoice is the choice of an output that is a text alone.
func plainChoice(k task.Kind, out *task.Output) choice {
	text := out.Text
	if text == "" && out.Value != nil {
		text = string(out.Value) // a JSON batch backend answers with any JSON
	}
	c := choice{text: text, members: members{"index": encode(0), "finish_reason": encode(cmp.Or(out.FinishReason, "stop"))}}
	if k == task.Chat {
		c.message = members{"content": encode(text)}
	}
	return c
}

func readChoice(k task.Kind, m members) (choice, error) {
	c := choice{members: m}
	if c.members == nil || c.finish() == "" {
		return c, fmt.Errorf("%w: a choice without finish_reason", ErrShape)
	}
	said := m["text"]
	if k == task.Chat {
		if err := json.Unmarshal(m["message"], &c.message); err != nil || c.message == nil {
			return c, fmt.Errorf("%w: message", ErrShape)
		}
		said = c.message["content"]
	}
	if said != nil && json.Unmarshal(said, &c.text) != nil { // null leaves it empty
		return c, fmt.Errorf("%w: text", ErrShape)
	}
	return c, nil
}

func (c choice) index() (n int) {
	_ = json.Unmarshal(c.members["index"], &n) // what is no number counts as the first
	return n
}

// finish is the finish_reason; empty if there is none.
func (c choice) finish() (reason string) {
	_ = json.Unmarshal(c.members["finish_reason"], &reason) // null is none
	return reason
}

// whole is the choice as an answer that is not streamed has it.
func (c choice) whole() members {
	out := members{}
	for name, v := range c.members {
		out[name] = v
	}
	if out["logprobs"] == nil {
		out["logprobs"] = null()
	}
	if c.message == nil {
		out["text"] = encode(c.text)
		return out
	}
	message := members{"role": encode("assistant"), "content": null(), "refusal": null()}
	for name, v := range c.message {
		message[name] = v
	}
	out["message"] = encode(message)
	return out
}
