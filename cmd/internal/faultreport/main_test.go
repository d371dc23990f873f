package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	dir := t.TempDir()
	rows := filepath.Join(dir, "rows")
	if err := run([]string{"-rows", rows, "-out", dir}, new(strings.Builder)); err == nil {
		t.Error("a run without rows is no error")
	}
	if err := os.WriteFile(rows, []byte(`{"fault":"F1","measured":"3 s","ok":true}`+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := run([]string{"-rows", rows, "-out", dir, "-name", "x", "-kafka", "4.3.1"}, &out); err != nil {
		t.Fatal(err)
	}
	md, err := os.ReadFile(filepath.Join(dir, "x.md"))
	if err != nil || !strings.Contains(string(md), "Kafka 4.3.1.") || !strings.Contains(out.String(), "1 rows: 1 ok") {
		t.Errorf("%v\n%s\n%s", err, md, out.String())
	}
}
