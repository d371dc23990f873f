// Package demo is Penstock's guided tour: real prompts as batch work, one chat
// streamed, one task poisoned until it is dead, and brought back. Everything
// runs in this process, by the code that runs in production.
package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/cmd/penstock/dev"
	"github.com/penstock/penstock/cmd/penstock/progress"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend/simulated"
	"github.com/penstock/penstock/worker/redrive"
)

// deadline bounds the tour: it takes seconds, or something is off.
const deadline = time.Minute

// poison is what the fault switch looks for in a prompt.
const poison = "the poisoned apple"

// Run gives the tour. It returns an error that says what was not as it should
// be.
func Run(ctx context.Context, out io.Writer, log *slog.Logger) error {
	ctx, cancel := context.WithTimeoutCause(ctx, deadline, fmt.Errorf("the demo took longer than %s", deadline))
	defer cancel()
	cfg := dev.DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	cfg.RetryBase, cfg.RetryMax = 50*time.Millisecond, 400*time.Millisecond // so that a poisoned task dies within a second
	stack, err := dev.Open(ctx, cfg, log)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var g errgroup.Group
	g.Go(func() error { return stack.Run(running) })
	tourErr := tour(ctx, out, stack)
	stop()
	if err := g.Wait(); tourErr == nil {
		return err
	}
	if cause := context.Cause(ctx); cause != nil && errors.Is(tourErr, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", cause, tourErr)
	}
	return tourErr
}

func tour(ctx context.Context, out io.Writer, stack *dev.Stack) error {
	cl, err := client.New(client.Config{API: stack.URL()})
	if err != nil {
		return err
	}
	defer cl.Close()
	g := &guide{out: out, cl: cl, url: stack.URL(), simulator: stack.SimulatorURL()}
	g.say("Penstock runs in this process: %s\n", g.url)
	for _, step := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"batch work: every prompt of prompts.jsonl, in one call", g.batch},
		{"one chat, streamed over SSE as it is made", g.chat},
		{"a poisoned task: the backend fails it, the worker retries, then gives up", g.poisonOne},
		{"the backend heals; the dead letter is put back to work", g.redriveOne},
		{"what the pipeline counted", g.summary},
	} {
		g.step++
		g.say("\n%d. %s\n", g.step, step.title)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("step %d (%s): %w", g.step, step.title, err)
		}
	}
	return nil
}

// guide is one tour and what it has done so far.
type guide struct {
	out            io.Writer
	cl             *client.Client
	url, simulator string
	step           int

	submitted int
	dead      task.ID
}

func (g *guide) say(format string, args ...any) { fmt.Fprintf(g.out, format, args...) }

func (g *guide) batch(ctx context.Context) error {
	prompts, err := Prompts()
	if err != nil {
		return err
	}
	ids, err := submitBatch(ctx, g.cl, prompts)
	if err != nil {
		return err
	}
	g.submitted += len(ids)
	bar := progress.New(g.out, len(ids))
	defer bar.Close()
	return g.cl.TailMany(ctx, ids, func(e event.Event) error {
		if !e.Type.Terminal() {
			return nil
		}
		bar.Step()
		if e.Type != event.Succeeded {
			return fmt.Errorf("task %s ended as %s", e.TaskID, e.Type)
		}
		return nil
	})
}

func (g *guide) chat(ctx context.Context) error {
	const question = "Tell me in one breath what a penstock is."
	messages, err := json.Marshal([]map[string]string{{"role": "user", "content": question}})
	if err != nil {
		return err
	}
	accepted, err := g.cl.Submit(ctx, api.SubmitRequest{
		Model: simulated.ChatModel, Payload: task.Payload{Messages: messages},
		Params: task.Params{"max_tokens": []byte("24")}, Stream: true, Class: task.Interactive,
	}, "")
	if err != nil {
		return err
	}
	g.submitted++
	g.say("   > %s\n   ", question)
	var text strings.Builder
	return g.cl.Tail(ctx, accepted.TaskID, event.ID{}, func(e event.Event) error {
		if e.Type == event.Delta {
			text.WriteString(e.Text)
			g.say("%s", e.Text)
		}
		if !e.Type.Terminal() {
			return nil
		}
		g.say("\n")
		if e.Type != event.Succeeded || e.Result == nil || e.Result.Output == nil || e.Result.Output.Text != text.String() {
			return fmt.Errorf("the stream ended as %s, and its pieces are not the answer", e.Type)
		}
		return nil
	})
}

// poisonOne lets the backend fail one prompt, until its task is dead.
func (g *guide) poisonOne(ctx context.Context) error {
	if err := g.faults(ctx, http.MethodPost, simulated.Fault{Match: poison, Action: simulated.ActionStatus, Status: http.StatusInternalServerError}); err != nil {
		return err
	}
	accepted, err := g.cl.Submit(ctx, api.SubmitRequest{
		Model: simulated.ChatModel, Payload: task.Payload{Text: "Who bit into " + poison + "?"}, Labels: map[string]string{"demo": "poison"},
	}, "")
	if err != nil {
		return err
	}
	g.submitted++
	g.dead = accepted.TaskID
	got, err := g.cl.Wait(ctx, g.dead)
	if err != nil {
		return err
	}
	if got.Status != task.Dead {
		return fmt.Errorf("the task is %s, it should be dead", got.Status)
	}
	return g.showLetter(ctx)
}

// showLetter finds the task among the dead letters, as an operator would.
func (g *guide) showLetter(ctx context.Context) error {
	letter, err := g.letter(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(g.out, 3, 4, 2, ' ', 0)
	fmt.Fprintln(w, "   DEAD LETTER\tTASK\tTRIES\tCAUSE\tFROM")
	fmt.Fprintf(w, "   %s\t%s…\t%d\t%s\t%s/%d@%d\n", letter.ID, letter.TaskID[:16], letter.Attempts, letter.Code,
		letter.Origin.Topic, letter.Origin.Partition, letter.Origin.Offset)
	return w.Flush()
}

// letter waits until the index of dead letters has read the task's.
func (g *guide) letter(ctx context.Context) (redrive.Letter, error) {
	for {
		list, err := g.cl.DeadLetters(ctx, 50)
		if err != nil {
			return redrive.Letter{}, err
		}
		if i := slices.IndexFunc(list.Letters, func(l redrive.Letter) bool { return l.TaskID == g.dead }); i >= 0 {
			return list.Letters[i], nil
		}
		if err := rest(ctx); err != nil {
			return redrive.Letter{}, fmt.Errorf("wait for the dead letter of %s: %w", g.dead, err)
		}
	}
}

func (g *guide) redriveOne(ctx context.Context) error {
	if err := g.faults(ctx, http.MethodDelete, nil); err != nil {
		return err
	}
	job, err := g.cl.Redrive(ctx, redrive.Request{IDs: []string{string(g.dead)}, Note: "penstock demo"})
	if err != nil {
		return err
	}
	for job.State != redrive.JobCompleted {
		if err := rest(ctx); err != nil {
			return fmt.Errorf("wait for redrive job %s, which is %s: %w", job.ID, job.State, err)
		}
		if job, err = g.cl.RedriveJob(ctx, job.ID); err != nil {
			return err
		}
	}
	if job.Redriven != 1 {
		return fmt.Errorf("the job put %d letters back, skipped %v", job.Redriven, job.SkippedFor)
	}
	return g.revived(ctx)
}

// revived waits until the same task has succeeded in its next generation.
func (g *guide) revived(ctx context.Context) error {
	for {
		got, err := g.cl.Wait(ctx, g.dead)
		if err != nil {
			return err
		}
		if got.Generation == 0 { // the reopening is not projected yet
			if err := rest(ctx); err != nil {
				return fmt.Errorf("wait for generation 1 of %s: %w", g.dead, err)
			}
			continue
		}
		if got.TaskID != g.dead || got.Generation != 1 || got.Status != task.Succeeded || got.Output == nil {
			return fmt.Errorf("task %s is %s in generation %d", got.TaskID, got.Status, got.Generation)
		}
		g.say("   the same task %s… succeeded in generation 1: %q\n", g.dead[:16], clip(got.Output.Text, 60))
		return nil
	}
}

// rest waits a little between two looks.
func rest(ctx context.Context) error {
	timer := time.NewTimer(50 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// faults calls the simulated backend's fault switches.
func (g *guide) faults(ctx context.Context, method string, fault any) error {
	body, err := json.Marshal(fault)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, g.simulator+"/sim/faults", bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("set a fault switch: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		return fmt.Errorf("set a fault switch: the simulated backend answers %s", res.Status)
	}
	return nil
}

func clip(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}
