//go:build e2e

package e2e_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// install has a script fetch pinned clients from their registry. Where they
// cannot be had the test skips itself, and is counted.
func install(ctx context.Context, t *testing.T, which string) string {
	t.Helper()
	cmd := exec.CommandContext(ctx, "../../scripts/sdk.sh", which)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 69 {
		t.Skipf("the %s client cannot be had here", which)
	}
	if err != nil {
		t.Fatalf("scripts/sdk.sh %s: %v", which, err)
	}
	return strings.TrimSpace(string(out))
}

// TestOfficialClientsOfTheOpenAIAPI runs openai-python (and LangChain over it)
// and openai-node, unmodified, against `penstock dev`.
func TestOfficialClientsOfTheOpenAIAPI(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	scripts, err := filepath.Abs("../../scripts/sdk")
	if err != nil {
		t.Fatal(err)
	}
	dev := startDev(t)
	check := func(t *testing.T, dir, name string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(ctx, name, append(args, dev.cl.API(), dev.faults)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Error(err)
		}
	}
	t.Run("Python", func(t *testing.T) {
		check(t, t.TempDir(), install(ctx, t, "python"), filepath.Join(scripts, "check.py"))
	})
	t.Run("Python, files and batches", func(t *testing.T) {
		check(t, t.TempDir(), install(ctx, t, "python"), filepath.Join(scripts, "batches.py"))
	})
	t.Run("Python, responses", func(t *testing.T) {
		check(t, t.TempDir(), install(ctx, t, "python"), filepath.Join(scripts, "responses.py"))
	})
	t.Run("JavaScript, responses", func(t *testing.T) {
		check(t, install(ctx, t, "node"), "node", filepath.Join(scripts, "responses.mjs"))
	})
	t.Run("JavaScript, files and batches", func(t *testing.T) {
		check(t, install(ctx, t, "node"), "node", filepath.Join(scripts, "batches.mjs"))
	})
	t.Run("JavaScript", func(t *testing.T) {
		check(t, install(ctx, t, "node"), "node", filepath.Join(scripts, "check.mjs"))
	})
}
