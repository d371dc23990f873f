package joblog

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// ErrEntry marks an entry that cannot be read.
var ErrEntry = errors.New("undecodable control entry")

// Encode writes an entry.
func Encode(e any) ([]byte, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode control entry: %w", err)
	}
	return b, nil
}

// Decode reads an entry whose type begins with a prefix. The second result is
// false for an entry of somebody else, which is no error. Whether an entry is
// complete is for its owner to say.
func Decode[E any](value []byte, prefix string) (e E, ours bool, err error) {
	var head struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(value, &head); err != nil {
		return e, false, fmt.Errorf("%w: %w", ErrEntry, err)
	}
	if !strings.HasPrefix(head.Type, prefix) {
		return e, false, nil
	}
	if err := json.Unmarshal(value, &e); err != nil {
		return e, false, fmt.Errorf("%w: %w", ErrEntry, err)
	}
	return e, true, nil
}
