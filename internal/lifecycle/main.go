// Package lifecycle starts and stops a process: Main with its signals and exit
// codes, a Stack of what must be undone, and the Readiness that probes ask for.
//
// A process stops by the cancellation of one context. The first SIGINT or
// SIGTERM cancels it with the cause ErrSignal and the process drains; the
// second kills at once, because nothing catches it any more.
package lifecycle

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes of Main. An error may carry its own through ExitCode() int.
const (
	ExitOK          = 0
	ExitError       = 1
	ExitUsage       = 2
	ExitInterrupted = 130
)

// ErrSignal is the cause of the context that a signal cancelled.
var ErrSignal = errors.New("stopped by signal")

// Proc is what a process gets from the outside, so that a test can stand in
// for it.
type Proc struct {
	Args   []string // without the program's name
	Getenv func(string) string
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
}

// OS returns the Proc of the running process.
func OS() Proc {
	return Proc{Args: os.Args[1:], Getenv: os.Getenv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
}

// Main runs a process and returns its exit code: 0 for nil and for a help
// request (flag.ErrHelp), 130 for work that a signal cut short, the error's own
// ExitCode if it has one, else 1. The error is printed once, on stderr.
func Main(run func(ctx context.Context, p Proc) error) int {
	signals := make(chan os.Signal, 1) // the first is kept while nobody reads; the second kills
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	return supervise(OS(), signals, func() { signal.Stop(signals) }, run)
}

// supervise is Main with its signals as arguments. restore gives the signals
// their default, deadly, meaning back.
func supervise(p Proc, signals <-chan os.Signal, restore func(), run func(context.Context, Proc) error) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan struct{})
	watched := make(chan struct{})
	go func() { // ends with run: watched is awaited below
		defer close(watched)
		select {
		case s := <-signals:
			restore()
			cancel(fmt.Errorf("%w: %s", ErrSignal, s))
		case <-done:
			restore()
		}
	}()
	err := run(ctx, p)
	close(done)
	<-watched
	code := exitCode(ctx, err)
	cancel(nil)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(p.Stderr, "error:", err)
	}
	return code
}

// exitCode chooses the process's exit code from what run returned.
func exitCode(ctx context.Context, err error) int {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return ExitOK
	}
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	cut := errors.Is(err, context.Canceled) || errors.Is(err, ErrSignal)
	if cut && errors.Is(context.Cause(ctx), ErrSignal) {
		return ExitInterrupted
	}
	return ExitError
}

// UsageError is an error of the one who typed the command: it exits 2.
type UsageError struct{ Err error }

// Error returns the wrapped text.
func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns the wrapped error.
func (e *UsageError) Unwrap() error { return e.Err }

// ExitCode is 2, as every shell tool has it.
func (e *UsageError) ExitCode() int { return ExitUsage }
