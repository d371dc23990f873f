package openaihttp

import (
	"bytes"
	"encoding/json"
	"maps"
)

// logprobs are a choice's probabilities, by the names that its form of the
// protocol has: `content` and `refusal` of a chat, `tokens`, `token_logprobs`
// and so on of a completion. Each is a list with one item per token.
type logprobs map[string][]json.RawMessage

// UnmarshalJSON takes the members that are lists. Whatever else there is, null
// above all, is no reason to refuse an answer.
func (l *logprobs) UnmarshalJSON(raw []byte) error {
	*l = nil
	var members map[string]json.RawMessage
	_ = json.Unmarshal(raw, &members) // what is no object has no members
	for name, member := range members {
		var list []json.RawMessage
		if json.Unmarshal(member, &list) == nil && list != nil {
			*l = l.plus(logprobs{name: list})
		}
	}
	return nil
}

// plus joins the lists of two pieces.
func (l logprobs) plus(next logprobs) logprobs {
	if l == nil {
		return maps.Clone(next)
	}
	for name, list := range next {
		l[name] = append(l[name], list...)
	}
	return l
}

// besides is what a choice of a stream has besides its text: its delta without
// content, and its logprobs, as the engine wrote them. Nil if the text is all.
func (c choice) besides(raw json.RawMessage) json.RawMessage {
	if (c.Delta == nil || !c.Delta.more()) && c.LogProbs == nil {
		return nil
	}
	var whole struct {
		Delta    map[string]json.RawMessage `json:"delta,omitempty"`
		LogProbs json.RawMessage            `json:"logprobs,omitempty"`
	}
	_ = json.Unmarshal(raw, &whole) // it was read into a choice before
	maps.DeleteFunc(whole.Delta, func(name string, v json.RawMessage) bool {
		return name == "content" || name == "role" || string(v) == "null"
	})
	if c.LogProbs == nil {
		whole.LogProbs = nil
	}
	return bytes.ToValidUTF8(mustJSON(whole), []byte("\uFFFD"))
}
