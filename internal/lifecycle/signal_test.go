package lifecycle_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/penstock/penstock/internal/lifecycle"
)

// childMode in the environment makes the test binary a process under Main.
const childMode = "PENSTOCK_LIFECYCLE_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childMode) {
	case "":
		os.Exit(m.Run())
	case "drains":
		os.Exit(lifecycle.Main(func(ctx context.Context, p lifecycle.Proc) error {
			fmt.Fprintln(p.Stdout, "up")
			<-ctx.Done()
			return nil
		}))
	case "hangs":
		os.Exit(lifecycle.Main(func(ctx context.Context, p lifecycle.Proc) error {
			fmt.Fprintln(p.Stdout, "up")
			<-ctx.Done()
			fmt.Fprintln(p.Stdout, "draining")
			select {}
		}))
	}
}

// child starts the test binary again and returns it with its lines.
func child(t *testing.T, mode string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childMode+"="+mode)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	expect(t, lines, "up")
	return cmd, lines
}

func expect(t *testing.T, lines *bufio.Scanner, want string) {
	t.Helper()
	if !lines.Scan() || lines.Text() != want {
		t.Fatalf("the child said %q, want %q", lines.Text(), want)
	}
}

func TestARealSignalDrainsTheProcess(t *testing.T) {
	t.Parallel()
	cmd, _ := child(t, "drains")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("got %v, want exit 0", err)
	}
}

func TestASecondRealSignalKillsIt(t *testing.T) {
	t.Parallel()
	cmd, lines := child(t, "hangs")
	for _, said := range []string{"draining", ""} {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if said != "" {
			expect(t, lines, said)
		}
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT {
		t.Errorf("got %v, want death by the second signal", err)
	}
}
