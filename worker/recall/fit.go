package recall

import (
	"encoding/json"
	"iter"
	"slices"
)

// maxBytes bounds the messages that are added to a task's own, whatever a
// backend says of their tokens.
const maxBytes = 8 << 20

// turn is one exchange that was remembered.
type turn struct {
	asked  []json.RawMessage
	answer json.RawMessage
	tokens int // of both, as told or guessed
}

func (t turn) bytes() int { return sizeOf(t.asked) + len(t.answer) }

func sizeOf(messages []json.RawMessage) int {
	n := 0
	for _, m := range messages {
		n += len(m)
	}
	return n
}

// fit takes turns, the newest first, while they fit, and returns them in the
// order in which they were. A turn is taken whole or not at all, and the first
// that is too large ends it: what a model is given has no holes.
func fit(tokens int, newest iter.Seq2[turn, error]) ([]turn, error) {
	var out []turn
	bytes := maxBytes
	for t, err := range newest {
		if err != nil {
			return nil, err
		}
		if tokens, bytes = tokens-t.tokens, bytes-t.bytes(); tokens < 0 || bytes < 0 {
			break
		}
		out = append(out, t)
	}
	slices.Reverse(out)
	return out, nil
}
