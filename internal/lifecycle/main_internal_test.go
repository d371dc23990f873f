package lifecycle

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"syscall"
	"testing"
)

type coded struct{ code int }

func (c coded) Error() string { return "coded" }
func (c coded) ExitCode() int { return c.code }

func TestExitCodesAndTheOneLineOnStderr(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		err    error
		code   int
		stderr string
	}{
		{"success is silent", nil, 0, ""},
		{"help is silent", flag.ErrHelp, 0, ""},
		{"an error is printed once", errors.New("open door"), 1, "error: open door\n"},
		{"a usage error exits 2", &UsageError{errors.New("unknown flag")}, 2, "error: unknown flag\n"},
		{"an error may carry its code, even wrapped", fmt.Errorf("wait: %w", coded{4}), 4, "error: wait: coded\n"},
		{"a cancellation without a signal is an error", context.Canceled, 1, "error: context canceled\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var stderr bytes.Buffer
			restored := 0
			code := supervise(Proc{Stderr: &stderr}, make(chan os.Signal), func() { restored++ },
				func(context.Context, Proc) error { return tc.err })
			if code != tc.code || stderr.String() != tc.stderr {
				t.Errorf("got code %d and %q, want %d and %q", code, stderr.String(), tc.code, tc.stderr)
			}
			if restored != 1 {
				t.Errorf("signals were restored %d times, want once", restored)
			}
		})
	}
}

func TestAFirstSignalCancelsWithItsCauseAndUncatchesTheNext(t *testing.T) {
	t.Parallel()
	signals := make(chan os.Signal, 1)
	signals <- syscall.SIGTERM
	var stderr bytes.Buffer
	restored := false
	code := supervise(Proc{Stderr: &stderr}, signals, func() { restored = true },
		func(ctx context.Context, _ Proc) error {
			<-ctx.Done()
			if !restored {
				t.Error("the signal was still caught after the first one")
			}
			if !errors.Is(context.Cause(ctx), ErrSignal) {
				t.Errorf("cause is %v, want ErrSignal", context.Cause(ctx))
			}
			return nil
		})
	if code != ExitOK {
		t.Errorf("a drained process exits %d, want 0", code)
	}
}

func TestWorkCutShortByASignalExits130(t *testing.T) {
	t.Parallel()
	signals := make(chan os.Signal, 1)
	signals <- os.Interrupt
	var stderr bytes.Buffer
	code := supervise(Proc{Stderr: &stderr}, signals, func() {},
		func(ctx context.Context, _ Proc) error {
			<-ctx.Done()
			return fmt.Errorf("wait for task: %w", ctx.Err())
		})
	if code != ExitInterrupted {
		t.Errorf("got exit code %d, want 130", code)
	}
}
