// Package dlt is `penstock dlt`: list, show and redrive dead letters, and
// steer redrive jobs, over the operator API.
//
// Redriving is putting a task back to work under its own id. The job runs on
// the server: closing the terminal stops nothing.
package dlt

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/internal/lifecycle"
)

// Params is what the command gets from the CLI around it.
type Params struct {
	// ClientFunc connects to the operator API that the flags name.
	ClientFunc func() (*client.Client, error)
	// PrintFunc writes an answer in the form the user asked for: data whole, or
	// its items one by one, or as a table.
	PrintFunc func(w io.Writer, data any, items []any, t Table) error
	// TerminalFunc reports whether a stream is a person's.
	TerminalFunc func(stream any) bool
	// GroupID is the help group of the command; empty: none.
	GroupID string
}

// Table is an answer for people.
type Table struct {
	Head []string
	Rows [][]string
}

// Command returns `dlt` with its verbs.
func Command(p Params) *cobra.Command {
	c := &cobra.Command{
		Use: "dlt", GroupID: p.GroupID,
		Short: "Dead letters: list, show, put back to work, discard",
		Long: `Dead letters are tasks that Penstock gave up on. They stay on penstock.dead-letters with
their bytes untouched; a redrive puts a task back to work under the same id, in its next
generation, and whoever polls it sees it go from dead to queued. Discarding one only hides it.
Jobs and discards note who ordered them: PENSTOCK_OPERATOR, else USER.`,
		Example: `  penstock dlt groups
  penstock dlt ls --code timeout --since 2h
  penstock dlt show 3-1207 --payload
  penstock dlt redrive --code unavailable --dry-run
  penstock dlt redrive --code unavailable --rate 20 --wait
  penstock dlt discard 3-1207 --reason "bytes of another system"`,
		Args: usage(func(c *cobra.Command, words []string) error {
			if len(words) > 0 {
				return fmt.Errorf("unknown command %q", words[0])
			}
			return nil
		}),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(p.list(), p.groups(), p.show(), p.redrive(), p.jobs(),
		p.order("pause", "Stop a job after the letters in flight"),
		p.order("resume", "Let a paused job go on"),
		p.order("cancel", "End a job for good; what it moved stays moved"), p.discard())
	return c
}

// usage makes the errors of a check exit 2.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, given []string) error {
		if err := check(c, given); err != nil {
			return &lifecycle.UsageError{Err: fmt.Errorf("%w; see `%s --help`", err, c.CommandPath())}
		}
		return nil
	}
}

func usageError(format string, args ...any) error {
	return &lifecycle.UsageError{Err: fmt.Errorf(format, args...)}
}

// with connects, and adds to an error what the server cannot know: how this
// command is told where to go and with what.
func (p Params) with(do func(cl *client.Client) error) error {
	cl, err := p.ClientFunc()
	if err != nil {
		return err
	}
	defer cl.Close()
	return hint(do(cl))
}

func hint(err error) error {
	e, ok := errors.AsType[*client.Error](err)
	switch {
	case !ok:
		return err
	case e.Status == http.StatusNotFound && e.Type == "":
		return fmt.Errorf("%w: no operator API there; set --admin or PENSTOCK_ADMIN to the worker's admin address", err)
	case e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden:
		return fmt.Errorf("%w: set PENSTOCK_ADMIN_TOKEN to the worker's admin token", err)
	case e.Status == http.StatusBadRequest || e.Status == http.StatusNotFound && strings.HasPrefix(e.Param, "ids"):
		return &lifecycle.UsageError{Err: err}
	}
	return err
}

// items makes a slice of anything a slice of items.
func items[T any](in []T) []any {
	out := make([]any, len(in))
	for i, v := range in {
		out[i] = v
	}
	return out
}
