// Package cli is the command line of penstock: verbs, flags, output and exit
// codes. Each command decodes its arguments, calls one function elsewhere and
// prints what it returned: data on stdout, all else on stderr.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/cmd/penstock/tty"
	"github.com/penstock/penstock/internal/lifecycle"
)

// Exit codes beyond those of lifecycle.
const (
	ExitTaskFailed  = 3
	ExitTimeout     = 4
	ExitUnreachable = 5
	ExitAuth        = 6
)

// Run is the whole command. Its error carries the exit code.
func Run(ctx context.Context, p lifecycle.Proc) error {
	root := newRoot(p)
	root.SetArgs(p.Args)
	return coded(root.ExecuteContext(ctx))
}

// env is what every command gets.
type env struct {
	lifecycle.Proc
	api, results, admin, key string
	name                     string // of the operator, for the audit
	output                   string
}

func newRoot(p lifecycle.Proc) *cobra.Command {
	e := &env{Proc: p}
	root := &cobra.Command{
		Use:   "penstock",
		Short: "An asynchronous inference pipeline on Kafka",
		Long: `Penstock takes inference requests over HTTP, keeps them in Kafka, batches them onto
backends and pushes tokens and results back over SSE.

Start with:  penstock dev
Exit codes:  0 ok, 1 error, 2 usage, 3 task failed, 4 timeout, 5 unreachable, 6 auth, 130 interrupted`,
		SilenceErrors: true, // lifecycle.Main prints the error, once
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, words []string) error {
			if len(words) > 0 {
				return fmt.Errorf("unknown command %q", words[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetIn(p.Stdin)
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &lifecycle.UsageError{Err: fmt.Errorf("%w; see `%s --help`", err, c.CommandPath())}
	})
	e.flags(root)
	root.AddGroup(
		&cobra.Group{ID: "run", Title: "Run:"},
		&cobra.Group{ID: "task", Title: "Tasks:"},
		&cobra.Group{ID: "operate", Title: "Operate:"},
	)
	root.AddCommand(e.commands()...)
	argumentErrors(root)
	return root
}

func (e *env) flags(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringVar(&e.api, "api", e.setting("PENSTOCK_API", "http://127.0.0.1:8080"), "base URL of the API (PENSTOCK_API)")
	f.StringVar(&e.results, "results", e.setting("PENSTOCK_RESULTS", ""), "base URL of the routes that read, if another (PENSTOCK_RESULTS)")
	f.StringVar(&e.admin, "admin", e.setting("PENSTOCK_ADMIN", ""), "base URL of the operator API, if another (PENSTOCK_ADMIN)")
	// Not a default of the flag: --help prints those.
	f.StringVar(&e.key, "key", "", "API key (PENSTOCK_KEY)")
	f.StringVarP(&e.output, "output", "o", "table", "table, json, jsonl or yaml")
}

// setting reads an environment variable.
func (e *env) setting(name, otherwise string) string {
	if v := e.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// Retries of commands: one that a person waits for gives up after half a
// second, one that works through a batch outlasts a restart.
const (
	fewRetries  = 2
	manyRetries = 8
)

// client connects to what the flags name.
func (e *env) client() (*client.Client, error) { return e.connect(fewRetries) }

// honest is client for a load test, which counts every answer.
func (e *env) honest() (*client.Client, error) { return e.connect(0) }

func (e *env) connect(retries int) (*client.Client, error) {
	key := e.key
	if key == "" {
		key = e.Getenv("PENSTOCK_KEY")
	}
	c, err := client.New(client.Config{API: e.api, Results: e.results, Admin: e.admin, Key: key, Operator: e.name, Retries: retries})
	if err != nil {
		return nil, &lifecycle.UsageError{Err: err}
	}
	return c, nil
}

// argumentErrors lets what is wrong with positional arguments exit 2, for a
// command and all below it.
func argumentErrors(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, words []string) error {
			if err := check(c, words); err != nil {
				return &lifecycle.UsageError{Err: fmt.Errorf("%w; see `%s --help`", err, c.CommandPath())}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		argumentErrors(sub)
	}
}

// exitError is an error with its own exit code.
type exitError struct {
	error
	code int
}

// Unwrap returns the wrapped error.
func (e *exitError) Unwrap() error { return e.error }

// ExitCode is what the process ends with.
func (e *exitError) ExitCode() int { return e.code }

// coded gives an error the exit code of its cause.
func coded(err error) error {
	var has interface{ ExitCode() int }
	if err == nil || errors.As(err, &has) {
		return err
	}
	if errors.Is(err, context.Canceled) {
		return err // lifecycle.Main knows whether a signal did it
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &exitError{err, ExitTimeout}
	}
	if _, ok := errors.AsType[*client.UnreachableError](err); ok {
		return &exitError{fmt.Errorf("%w; is it running? start one with `penstock dev`", err), ExitUnreachable}
	}
	switch client.StatusOf(err) {
	case 401, 403:
		return &exitError{err, ExitAuth}
	}
	return err
}

// isTerminal reports whether a stream is a person's screen.
func isTerminal(w io.Writer) bool { return tty.Is(w) }
