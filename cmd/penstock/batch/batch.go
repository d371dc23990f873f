// Package batch runs a file of tasks and gathers their results: all lines are
// checked before the first is submitted, results are written as they come, and
// a run that was cut short is taken up by the same command.
//
// It keeps no state of its own. What has a line in the output file is done. For
// the rest the key of each submit follows from the file and the line, so a
// second run finds the tasks of the first, running or ended, instead of making
// new ones, as long as the server knows a key: a day.
package batch

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/cmd/penstock/progress"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
)

// Params are what the caller of a run wants.
type Params struct {
	File        string
	Out         string // file of the results; empty: Stdout
	Defaults    Defaults
	Concurrency int    // tasks in flight at once
	Fresh       bool   // new tasks, although the server may know the file's
	OnInterrupt Choice // what happens to the tasks in flight

	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Summary counts a run's lines.
type Summary struct {
	Total     int // in the file
	Before    int // of these had their result already
	Succeeded int
	Failed    int // ended otherwise, or were refused
}

// Run runs a file. A context that ends stops it, after the question what is to
// become of the tasks in flight. What is wrong with the file is a usage error.
func Run(ctx context.Context, cl *client.Client, p Params) (Summary, error) {
	models, err := modelsOf(ctx, cl)
	if err != nil {
		return Summary{}, err
	}
	plan, err := open(p.File, p.Defaults, models)
	if err != nil {
		return Summary{}, &lifecycle.UsageError{Err: err}
	}
	defer plan.close()
	out, err := openResults(p.Out, p.Stdout)
	if err != nil {
		return Summary{}, &lifecycle.UsageError{Err: err}
	}
	r := &run{cl: cl, p: p, plan: plan, out: out, began: time.Now(), flying: map[task.ID]string{}}
	if p.Fresh {
		r.salt = rand.Text()
	}
	err = r.all(ctx)
	return r.sum, errors.Join(err, out.close())
}

// modelsOf returns the ids of the server's models.
func modelsOf(ctx context.Context, cl *client.Client) ([]string, error) {
	list, err := cl.Models(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(list.Data))
	for i, m := range list.Data {
		out[i] = m.ID
	}
	return out, nil
}

// run is one run of a plan.
type run struct {
	cl   *client.Client
	p    Params
	plan *plan
	out  *results
	salt string
	bar  *progress.Progress

	began time.Time

	mu     sync.Mutex // guards what follows
	sum    Summary
	flying map[task.ID]string // accepted and not ended, by custom id
}

func (r *run) all(ctx context.Context) error {
	var left []line
	for _, l := range r.plan.lines {
		if !r.out.done[l.id] {
			left = append(left, l)
		}
	}
	r.sum = Summary{Total: len(r.plan.lines), Before: len(r.plan.lines) - len(left)}
	if r.sum.Before > 0 {
		fmt.Fprintf(r.p.Stderr, "%d of %d lines have their result already\n", r.sum.Before, r.sum.Total)
	}
	r.bar = progress.New(r.p.Stderr, len(left))
	err := r.work(ctx, left)
	r.bar.Close()
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), r.interrupted(ctx))
	}
	return err
}

// work runs lines, so many at once, until one meets trouble that would meet
// every other too.
func (r *run) work(ctx context.Context, left []line) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(r.p.Concurrency)
	for _, l := range left {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			if ctx.Err() != nil {
				return nil // the cause is returned by whoever met it
			}
			return r.one(ctx, l)
		})
	}
	return g.Wait()
}

// one brings one line to its result. A task of the key that an earlier run had
// cancelled, or whose result is gone by now, is of no use: the next key of the
// line makes another.
func (r *run) one(ctx context.Context, l line) error {
	for again := 0; ; again++ {
		id, err := r.submit(ctx, l, again)
		if refused, ok := errors.AsType[*client.Error](err); ok && lineOnly(refused.Status) {
			return r.finish(Result{CustomID: l.id, Refused: refusal(refused)})
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", r.p.File, l.number, err)
		}
		t, err := r.cl.Wait(ctx, id)
		if again < maxAgain && r.useless(t, err) {
			r.landed(id)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", r.p.File, l.number, err)
		}
		r.landed(id)
		return r.finish(Result{CustomID: l.id, Task: &t})
	}
}

// maxAgain is how many tasks of one line are passed over.
const maxAgain = 16

func (r *run) useless(t api.Task, err error) bool {
	if err != nil {
		return client.StatusOf(err) == http.StatusGone
	}
	return t.Status == task.Cancelled && t.EndedAt != nil && t.EndedAt.Before(r.began)
}

// lineOnly reports that a status is one line's trouble and not everybody's.
func lineOnly(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

// submitGrace is how long a submit that is under way may take once the run is
// to stop: what it makes must be known, to be kept or cancelled.
const submitGrace = 5 * time.Second

func (r *run) submit(ctx context.Context, l line, again int) (task.ID, error) {
	body, key, err := r.plan.body(l, r.salt)
	if err != nil {
		return "", err
	}
	if again > 0 {
		key += "-" + strconv.Itoa(again)
	}
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(submitGrace, stop) })()
	accepted, err := r.cl.SubmitRaw(sending, body, key)
	if err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flying[accepted.TaskID] = l.id
	return accepted.TaskID, nil
}

func (r *run) landed(id task.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.flying, id)
}

// finish writes a result and counts it.
func (r *run) finish(one Result) error {
	if err := r.out.write(one); err != nil {
		return err
	}
	r.mu.Lock()
	if one.ok() {
		r.sum.Succeeded++
	} else {
		r.sum.Failed++
	}
	r.mu.Unlock()
	r.bar.Step()
	return nil
}

// MaxConcurrency bounds Params.Concurrency: each task in flight holds a
// connection.
const MaxConcurrency = api.MaxWatched
