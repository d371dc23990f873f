//go:build e2e

package e2e_test

import (
	"bufio"
	"context"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/schema/task"
)

func TestDemo(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(env.bin, "penstock"), "demo").CombinedOutput()
	if err != nil {
		t.Fatalf("penstock demo: %v\n%s", err, out)
	}
	for _, want := range []string{"60 / 60 tasks", "DEAD LETTER", "generation 1", "succeeded"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the demo does not say %q:\n%s", want, out)
		}
	}
}

// devProcess is a running `penstock dev`.
type devProcess struct {
	cl     *client.Client
	faults string // the fault switches of its simulated engine
	stop   func()
}

// startDev starts `penstock dev` on a free port and reads its URL from what it
// prints.
func startDev(t *testing.T, args ...string) devProcess {
	t.Helper()
	cmd := exec.Command(filepath.Join(env.bin, "penstock"), append([]string{"dev", "--listen", "127.0.0.1:0"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("penstock dev ended with %v", err)
		}
	}
	t.Cleanup(stop)
	dev := devProcess{stop: stop}
	urls := regexp.MustCompile(`http://[^ ]+`)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		switch line := lines.Text(); {
		case strings.Contains(line, "API base"):
			cl, err := client.New(client.Config{API: urls.FindString(line)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(cl.Close)
			dev.cl = cl
		case strings.Contains(line, "Engine") && dev.cl != nil:
			dev.faults = urls.FindString(line)
			go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the process
			return dev
		}
	}
	t.Fatal("penstock dev printed no API base")
	return devProcess{}
}

func TestDevKeepsResultsAcrossARestart(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	first := startDev(t, "--data-dir", dir)
	done, ok, err := first.cl.SubmitAndWait(ctx, prompt("remember me"), "", 30*time.Second)
	if err != nil || !ok {
		t.Fatalf("first run: done %v, %v", ok, err)
	}
	first.stop()

	second := startDev(t, "--data-dir", dir)
	got, err := second.cl.Wait(ctx, done.TaskID)
	if err != nil {
		t.Fatal(err)
	}
	if got.Status != task.Succeeded || got.Output == nil || got.Output.Text != done.Output.Text {
		t.Errorf("after the restart the task is %s with output %v, before it was %v", got.Status, got.Output, done.Output)
	}
	more, ok, err := second.cl.SubmitAndWait(ctx, prompt("and go on"), "", 30*time.Second)
	if err != nil || !ok || more.Status != task.Succeeded {
		t.Errorf("after the restart a new task is %s, done %v, %v", more.Status, ok, err)
	}
}

func TestTwoDevProcessesShareARealKafkaAndRedis(t *testing.T) {
	p := params(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	args := []string{"--kafka", strings.Join(p.Kafka, ","), "--redis", p.Redis}
	one, two := startDev(t, args...), startDev(t, args...)
	for range 10 {
		accepted, err := one.cl.Submit(ctx, prompt("said to one"), "")
		if err != nil {
			t.Fatal(err)
		}
		got, err := two.cl.Wait(ctx, accepted.TaskID)
		if err != nil || got.Status != task.Succeeded {
			t.Fatalf("asked of the other: %s, %v", got.Status, err)
		}
	}
}
