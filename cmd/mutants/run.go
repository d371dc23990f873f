package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// verdict is what became of a mutant.
type verdict struct {
	killedBy string // the first test that failed; empty: none did
	took     time.Duration
}

// limit is the longest the tests of one mutant may take. A change that makes
// them hang is noticed too, and this is what notices.
const limit = 3 * time.Minute

// ended names a kill without a test to name: the process crashed, or had no end.
const ended = "a crash or the time limit"

// try builds and tests with one mutant in place.
func (m *mutant) try(ctx context.Context, root string) (verdict, error) {
	dir, err := os.MkdirTemp("", "penstock-mutant-")
	if err != nil {
		return verdict{}, fmt.Errorf("mutant %s: %w", m.name, err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // a leftover in the temporary folder harms nobody
	overlay, err := m.overlay(root, dir)
	if err != nil {
		return verdict{}, err
	}
	if out, err := goTest(ctx, root, append([]string{"-overlay", overlay, "-run", "^$"}, m.tests...)); err != nil {
		return verdict{}, fmt.Errorf("mutant %s does not compile: %w\n%s", m.name, err, out)
	}
	return m.test(ctx, root, overlay)
}

func (m *mutant) test(ctx context.Context, root, overlay string) (verdict, error) {
	args := []string{"-overlay", overlay, "-count=1", "-failfast", "-timeout", limit.String(), "-json"}
	if m.run != "" {
		args = append(args, "-run", m.run)
	}
	began := time.Now()
	out, err := goTest(ctx, root, append(args, m.tests...))
	v := verdict{took: time.Since(began)}
	switch _, failed := errors.AsType[*exec.ExitError](err); {
	case err == nil:
		return v, nil
	case ctx.Err() != nil:
		return v, fmt.Errorf("mutant %s: %w", m.name, context.Cause(ctx))
	case !failed:
		return v, fmt.Errorf("mutant %s: %w", m.name, err)
	}
	if v.killedBy = firstFailure(out); v.killedBy == "" {
		v.killedBy = ended
	}
	return v, nil
}

func goTest(ctx context.Context, root string, args []string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test"}, args...)...)
	cmd.Dir = root
	return cmd.CombinedOutput()
}

// firstFailure is the name of the first test that failed, of `go test -json`.
func firstFailure(out []byte) string {
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e struct{ Action, Test string }
		if json.Unmarshal(lines.Bytes(), &e) == nil && e.Action == "fail" && e.Test != "" {
			return e.Test
		}
	}
	return ""
}
