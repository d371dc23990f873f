//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/schema/task"
)

// shellBlocks returns the commands that a page shows, in order. Those that
// start a system are left out: other tests run them.
func shellBlocks(t *testing.T, page string) []string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		if block := m[1]; !strings.HasPrefix(block, "make ") && !strings.HasPrefix(block, "go run ") {
			out = append(out, block)
		}
	}
	return out
}

// TestTheCommandsInTheDocs runs what the pages tell their readers to type, from
// top to bottom, against `penstock dev`. The id that an answer names is the
// TASK_ID of the commands after it.
func TestTheCommandsInTheDocs(t *testing.T) {
	dev := startDev(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	id := regexp.MustCompile(`task_[0-9a-v]{48}`)
	refused := regexp.MustCompile(`"code":[45][0-9][0-9]`)
	base := dev.cl.API()
	for _, page := range []string{"../../README.md", "../../docs/cli.md", "../../docs/runbook/dead-letters.md"} {
		dir := t.TempDir()
		blocks := shellBlocks(t, page)
		if len(blocks) == 0 {
			t.Errorf("%s shows no commands", page)
		}
		last := ""
		for _, block := range blocks {
			if strings.Contains(block, "dlt") && last != "dead" {
				t.Setenv("TASK_ID", string(giveUp(ctx, t, dev)))
				last = "dead"
			}
			cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", strings.ReplaceAll(block, "localhost:8080", strings.TrimPrefix(base, "http://")))
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "PATH="+env.bin+":"+os.Getenv("PATH"), "PENSTOCK_API="+base, "PENSTOCK_ADMIN="+base)
			out, err := cmd.CombinedOutput()
			if err != nil || refused.Match(out) || len(out) == 0 {
				t.Errorf("%s: %v\n%s\n%s", page, err, block, out)
			}
			if found := id.Find(out); found != nil && last != "dead" {
				t.Setenv("TASK_ID", string(found))
			}
		}
	}
}

// giveUp makes a task that ends in the dead letters, and heals the engine.
func giveUp(ctx context.Context, t *testing.T, dev devProcess) task.ID {
	t.Helper()
	switchFault(ctx, t, http.MethodPost, dev.faults, `{"match":"poison","status":500}`)
	defer switchFault(ctx, t, http.MethodDelete, dev.faults, "")
	accepted, err := dev.cl.Submit(ctx, prompt(fmt.Sprintf("poison %d", time.Now().UnixNano())), "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := dev.cl.Wait(ctx, accepted.TaskID)
	if err != nil || got.Status != task.Dead {
		t.Fatalf("the poisoned task is %s, %v", got.Status, err)
	}
	eventually(t, 10*time.Second, "the letter is in the index", func() bool {
		letters, err := dev.cl.DeadLetters(ctx, 10)
		return err == nil && len(letters.Letters) > 0 && letters.Letters[0].TaskID == accepted.TaskID
	})
	return accepted.TaskID
}

func switchFault(ctx context.Context, t *testing.T, method, url, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode >= 300 {
		t.Fatalf("%s %s: status %d, %v", method, url, resp.StatusCode, err)
	}
}
