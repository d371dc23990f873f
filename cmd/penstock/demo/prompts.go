package demo

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"

	"github.com/penstock/penstock/schema/api"
)

// promptLines are request bodies, one a line: what people really ask models
// for, in the form that `penstock submit -f` takes too.
//
//go:embed prompts.jsonl
var promptLines []byte

// Prompts returns the shipped prompts as requests.
func Prompts() ([]api.SubmitRequest, error) {
	var out []api.SubmitRequest
	lines := bufio.NewScanner(bytes.NewReader(promptLines))
	for lines.Scan() {
		var r api.SubmitRequest
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("prompts.jsonl, line %d: %w", len(out)+1, err)
		}
		out = append(out, r)
	}
	return out, lines.Err()
}
