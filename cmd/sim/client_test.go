package sim_test

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/redrive"
)

// caller is a client of one task, and what it saw.
type caller struct {
	w *world
	n int // of the order
	o order
	r *rand.Rand

	mu     sync.Mutex
	id     task.ID // empty: never accepted
	seen   map[uint8]api.Task
	events []event.Event
	ended  bool // the event stream came to its end
}

func (w *world) newCaller(i int, o order) *caller {
	return &caller{w: w, n: i, o: o, r: rand.New(rand.NewPCG(w.seed, 1000+uint64(i))), seen: map[uint8]api.Task{}}
}

func (c *caller) body() api.SubmitRequest {
	b := api.SubmitRequest{
		Model: chatModel, Payload: task.Payload{Text: c.o.prompt}, Stream: c.o.stream, Class: c.o.class,
		Timeout: c.o.timeout, OrderingKey: c.o.ordering, SessionID: c.o.session, Memory: c.o.session != "",
		Webhook: c.o.webhook(c.n),
	}
	if c.o.embed {
		raw, err := json.Marshal(c.o.prompt)
		c.w.must(err)
		b.Model, b.Payload = embedModel, task.Payload{Inputs: []json.RawMessage{raw}}
	}
	return b
}

// run does what the order says, until the watching ends.
func (c *caller) run(ctx context.Context) {
	time.Sleep(c.o.at)
	id := c.submit(ctx)
	if id == "" {
		return
	}
	c.mu.Lock()
	c.id = id
	c.mu.Unlock()
	draws := make([]*client.Client, len(c.o.polls)+1)
	for i := range draws { // drawn here: a source of chance is no good for many
		draws[i] = c.w.client(c.r)
	}
	var doing sync.WaitGroup
	defer doing.Wait()
	for i, after := range c.o.polls {
		doing.Go(func() { time.Sleep(after); c.poll(ctx, draws[i]) })
	}
	if c.o.cancel > 0 {
		doing.Go(func() { time.Sleep(c.o.cancel); c.cancel(ctx, draws[len(draws)-1]) })
	}
	if c.o.watch {
		doing.Go(func() { c.watch(ctx) })
	}
	if c.o.again > 0 {
		time.Sleep(c.o.again)
		if second := c.submit(ctx); second != "" && second != id {
			c.w.fault("I6", "key %s was given %s, then %s", c.o.key, id, second)
		}
	}
}

// submit tries until the task is accepted, or it is too late for the run.
func (c *caller) submit(ctx context.Context) task.ID {
	for range 60 {
		short, cancel := context.WithTimeout(ctx, 30*time.Second)
		got, err := c.w.client(c.r).Submit(short, c.body(), c.o.key)
		cancel()
		if err == nil {
			return got.TaskID
		}
		if status := client.StatusOf(err); status != 0 && status != http.StatusServiceUnavailable && status != http.StatusTooManyRequests {
			c.w.fault("submit", "%s: %v", c.o.prompt, err)
			return ""
		}
		time.Sleep(time.Second)
	}
	return ""
}

// poll looks once and compares a terminal with what was seen before.
func (c *caller) poll(ctx context.Context, cl *client.Client) {
	short, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	got, err := cl.Task(short, c.id, 0)
	if err != nil {
		c.allow("poll", err)
		return
	}
	c.saw(got)
}

// allow tells whether an answer may be an error: 503 may, and no answer.
func (c *caller) allow(what string, err error) {
	if status := client.StatusOf(err); status != 0 && status != http.StatusServiceUnavailable {
		c.w.fault("I1", "%s of the accepted task %s (%s): %v", what, c.id, c.o.prompt, err)
	}
}

func (c *caller) saw(t api.Task) {
	if !t.Status.Terminal() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// What was known of the task beside its end may be lost with Redis.
	t.Model, t.Class, t.Labels, t.CreatedAt = "", "", nil, nil
	before, known := c.seen[t.Generation]
	if !known {
		c.seen[t.Generation] = t
		return
	}
	if a, b := text(before), text(t); a != b {
		c.w.fault("I3", "task %s (%s) changed from\n%s\nto\n%s", c.id, c.o.prompt, a, b)
	}
}

// cancel takes any answer: the terminal that won tells the truth.
func (c *caller) cancel(ctx context.Context, cl *client.Client) {
	short, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	got, pending, err := cl.Cancel(short, c.id)
	switch {
	case err != nil:
		c.allow("cancel", err)
	case !pending:
		c.saw(got)
	}
}

// watch follows the event stream to its end, however often it breaks.
func (c *caller) watch(ctx context.Context) {
	for ctx.Err() == nil {
		var after event.ID
		if n := len(c.events); n > 0 {
			after = c.events[n-1].ID
		}
		err := c.w.client(c.r).Tail(ctx, c.id, after, func(e event.Event) error {
			if !e.ID.IsZero() {
				c.events = append(c.events, e)
			}
			return nil
		})
		if err == nil {
			c.ended = true
			return
		}
		var answer *client.Error
		if errors.As(err, &answer) {
			c.allow("stream", err)
		}
		time.Sleep(time.Second)
	}
}

// redrive cures the poison and puts all dead letters back to work.
func (w *world) redrive(s strike) {
	w.engine.set(func(e *engine) { e.cured = true })
	r := rand.New(rand.NewPCG(w.seed, uint64(s.pick)))
	for range 30 {
		ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
		job, err := w.client(r).Redrive(ctx, redrive.Request{Filter: &redrive.Filter{}, Rate: 5})
		cancel()
		if err == nil {
			w.awaitJob(r, job.ID)
			return
		}
		if client.StatusOf(err) == http.StatusNotFound { // nothing is dead
			return
		}
		time.Sleep(2 * time.Second)
	}
}

// awaitJob waits for the end of a redrive job, for five minutes at most.
func (w *world) awaitJob(r *rand.Rand, id string) {
	var last redrive.Job
	for range 60 {
		ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
		if job, err := w.client(r).RedriveJob(ctx, id); err == nil {
			last = job
		}
		if last.State == redrive.JobPaused { // by itself; the operator looks after it
			_, _ = client.Operate[redrive.Job](ctx, w.client(r), http.MethodPost, "/admin/v1/redrives/"+id+"/resume", nil, nil)
		}
		cancel()
		if !last.EndedAt.IsZero() {
			return
		}
		time.Sleep(5 * time.Second)
	}
	w.fault("redrive", "job %s did not end: %+v", id, last)
}

func text(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}
