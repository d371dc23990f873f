package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"go.yaml.in/yaml/v3"

	"github.com/penstock/penstock/internal/lifecycle"
)

// table is what a command prints for people.
type table struct {
	head []string
	rows [][]string
}

// print writes data in the form the user asked for. Items are the same data one
// by one, for jsonl and the table.
func print[T any](e *env, w io.Writer, data any, items []T, rows func([]T) table) error {
	switch e.output {
	case "table":
		return rows(items).write(w)
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(data)
	case "jsonl":
		return writeLines(w, items)
	case "yaml":
		return writeYAML(w, data)
	}
	return &lifecycle.UsageError{Err: fmt.Errorf("--output %q: want table, json, jsonl or yaml", e.output)}
}

func writeLines[T any](w io.Writer, items []T) error {
	enc := json.NewEncoder(w)
	for _, item := range items {
		if err := enc.Encode(item); err != nil {
			return err
		}
	}
	return nil
}

// writeYAML goes by way of JSON, so that names and omissions are the same.
func writeYAML(w io.Writer, data any) error {
	raw, err := json.Marshal(data)
	if err != nil {
		return err
	}
	var plain any
	if err := yaml.Unmarshal(raw, &plain); err != nil { // JSON is YAML, and numbers keep their form
		return err
	}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(plain); err != nil {
		return err
	}
	return enc.Close()
}

func (t table) write(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	if len(t.head) > 0 {
		fmt.Fprintln(tw, strings.Join(t.head, "\t"))
	}
	for _, r := range t.rows {
		fmt.Fprintln(tw, strings.Join(r, "\t"))
	}
	return tw.Flush()
}
