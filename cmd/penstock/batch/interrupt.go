package batch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/cmd/penstock/tty"
	"github.com/penstock/penstock/schema/task"
)

// Choice is what becomes of tasks in flight when a run is interrupted.
type Choice string

// Choices. Ask asks a person at a terminal, and keeps without one.
const (
	Ask    Choice = "ask"
	Keep   Choice = "keep"
	Cancel Choice = "cancel"
)

// ParseChoice reads a choice.
func ParseChoice(s string) (Choice, error) {
	if c := Choice(s); slices.Contains([]Choice{Ask, Keep, Cancel}, c) {
		return c, nil
	}
	return "", fmt.Errorf("%q: want ask, keep or cancel", s)
}

const (
	cancelTimeout = 30 * time.Second // of all cancels together
	cancelAtOnce  = 32
)

// interrupted settles what becomes of the tasks in flight. A second Ctrl-C at
// the question ends the process, and the tasks are kept.
func (r *run) interrupted(ctx context.Context) error {
	r.mu.Lock()
	flying := slices.Sorted(maps.Keys(r.flying))
	r.mu.Unlock()
	if len(flying) == 0 {
		fmt.Fprintln(r.p.Stderr, "stopped; nothing is in flight. Run the same command again to go on.")
		return nil
	}
	if r.choose(len(flying)) == Keep {
		fmt.Fprintf(r.p.Stderr, "stopped; %d tasks go on. Run the same command again to get their results and those of the rest.\n", len(flying))
		return nil
	}
	return r.cancel(ctx, flying)
}

func (r *run) choose(n int) Choice {
	if r.p.OnInterrupt != Ask {
		return r.p.OnInterrupt
	}
	if !tty.Is(r.p.Stdin) {
		return Keep
	}
	return r.question(n)
}

// question asks until it understands the answer; without one the tasks are kept.
func (r *run) question(n int) Choice {
	answers := bufio.NewScanner(r.p.Stdin)
	for {
		fmt.Fprintf(r.p.Stderr, "\n%d tasks are in flight: [k]eep them or [c]ancel them? [k] ", n)
		if !answers.Scan() {
			return Keep
		}
		switch strings.ToLower(strings.TrimSpace(answers.Text())) {
		case "", "k", "keep":
			return Keep
		case "c", "cancel":
			return Cancel
		}
	}
}

// cancel stops tasks, and writes the results of those that had ended already.
func (r *run) cancel(ctx context.Context, ids []task.ID) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
	defer stop()
	var g errgroup.Group
	g.SetLimit(cancelAtOnce)
	errs := make([]error, len(ids))
	for i, id := range ids {
		g.Go(func() error {
			errs[i] = r.cancelOne(ctx, id)
			return nil
		})
	}
	_ = g.Wait() // each has its own error
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cancel tasks in flight: %w", err)
	}
	fmt.Fprintf(r.p.Stderr, "stopped; %d tasks in flight were cancelled. Run the same command again to run them anew, and the rest.\n", len(ids))
	return nil
}

func (r *run) cancelOne(ctx context.Context, id task.ID) error {
	t, pending, err := r.cl.Cancel(ctx, id)
	if err != nil || pending {
		return err
	}
	r.mu.Lock()
	custom := r.flying[id]
	r.mu.Unlock()
	if t.Status == task.Cancelled {
		return nil // no result: a later run takes it up
	}
	return r.finish(Result{CustomID: custom, Task: &t})
}
