package recall

import (
	"encoding/json"
	"iter"
)

// Turn is a turn for tests.
type Turn struct {
	Asked  []json.RawMessage
	Answer json.RawMessage
	Tokens int
}

// Fit is fit over turns in the order in which they were.
func Fit(tokens int, turns []Turn) []Turn {
	var newest iter.Seq2[turn, error] = func(yield func(turn, error) bool) {
		for i := len(turns) - 1; i >= 0; i-- {
			if t := turns[i]; !yield(turn{t.Asked, t.Answer, t.Tokens}, nil) {
				return
			}
		}
	}
	fitted, err := fit(tokens, newest)
	if err != nil {
		panic(err) // none was given
	}
	var out []Turn
	for _, t := range fitted {
		out = append(out, Turn{t.asked, t.answer, t.tokens})
	}
	return out
}

// MaxBytes is maxBytes.
const MaxBytes = maxBytes
