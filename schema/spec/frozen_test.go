package spec_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// golden is one frozen record, less key and value.
type golden struct {
	name    string
	headers []string
}

// frozen reads the records that schema/wire froze.
func frozen(t *testing.T) []golden {
	t.Helper()
	files, err := filepath.Glob("../wire/testdata/v1/*.json")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d frozen records, %v", len(files), err)
	}
	out := make([]golden, len(files))
	for i, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var record struct{ Headers []struct{ Key string } }
		if err := json.Unmarshal(text, &record); err != nil {
			t.Fatal(err)
		}
		out[i].name = strings.TrimSuffix(filepath.Base(file), ".json")
		for _, h := range record.Headers {
			out[i].headers = append(out[i].headers, h.Key)
		}
	}
	return out
}
