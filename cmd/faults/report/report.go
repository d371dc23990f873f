// Package report gathers what a run of the fault ladder measured, one row for
// each fault, and prints it as a table, as Markdown and as JSON.
//
// Rows go through a file, so that several test binaries make one report and a
// run that ends in a panic keeps what it had.
package report

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Variable names the file of rows in the environment.
const Variable = "PENSTOCK_FAULTS_ROWS"

// Result is one row: a fault, what was demanded and what came of it.
type Result struct {
	Fault    string `json:"fault"`    // as in the fault matrix: "F1"
	What     string `json:"what"`     // the fault and the load in some words
	Target   string `json:"target"`   // what the matrix demands
	Measured string `json:"measured"` // what came of it
	OK       bool   `json:"ok"`       // the target is met
	// Broken are the invariants that did not hold, "I1: 3 acked tasks without a
	// terminal". Any of them fails the test. A missed target does not: a slow
	// machine is no defect.
	Broken []string `json:"broken,omitempty"`
	// See names the tests of `make test` that show a row which needs no real
	// processes: nothing was measured here.
	See []string `json:"see,omitempty"`
	// Absent says why the fault cannot be had on this machine.
	Absent string `json:"absent,omitempty"`
	Seed   uint64 `json:"seed,omitempty"` // replays the run; zero where nothing is drawn

	Took time.Duration `json:"took_ns,omitempty"` // how long the test ran, where it says so
	Test string        `json:"test"`              // set by Row
}

// Verdict is one word for a row.
func (r Result) Verdict() string {
	switch {
	case len(r.Broken) > 0:
		return "BROKEN"
	case r.Absent != "":
		return "absent"
	case len(r.See) > 0:
		return "see"
	case !r.OK:
		return "MISS"
	default:
		return "ok"
	}
}

// Test is what Row needs of a *testing.T.
type Test interface {
	Helper()
	Name() string
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
}

// Row logs a result, adds it to the report, and fails the test when an
// invariant is broken.
func Row(t Test, r Result) {
	t.Helper()
	r.Test = t.Name()
	t.Logf("%s %s: %s; target: %s; measured: %s", r.Fault, r.Verdict(), r.What, r.Target, r.Measured)
	for _, b := range r.Broken {
		t.Errorf("%s: broken invariant: %s", r.Fault, b)
	}
	if path := os.Getenv(Variable); path != "" {
		if err := add(path, r); err != nil {
			t.Errorf("report %s: %v", r.Fault, err)
		}
	}
}

// add appends one line; a line is written whole or not at all.
func add(path string, r Result) (err error) {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.Write(append(line, '\n'))
	return err
}

// Read returns the rows of a file. One that does not exist has none.
func Read(path string) ([]Result, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the rows: %w", err)
	}
	defer f.Close()
	var out []Result
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r Result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("read row %d: %w", len(out)+1, err)
		}
		out = append(out, r)
	}
	return out, lines.Err()
}
