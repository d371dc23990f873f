package recall

import (
	"encoding/json"
	"fmt"
)

// split reads a list of messages, each as it was written.
func split(list json.RawMessage) ([]json.RawMessage, error) {
	var out []json.RawMessage
	if err := json.Unmarshal(list, &out); err != nil {
		return nil, fmt.Errorf("read messages: %w", err)
	}
	return out, nil
}

// join writes a list of messages.
func join(messages []json.RawMessage) json.RawMessage {
	out := make([]byte, 0, sizeOf(messages)+len(messages)+2)
	out = append(out, '[')
	for i, m := range messages {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, m...)
	}
	return append(out, ']')
}
