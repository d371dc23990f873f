package sim_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path"
	"strconv"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/callback"
	"github.com/penstock/penstock/resultsvc"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/webhook"
)

// What a receiver does with the first call of an event. It takes every later
// one.
const (
	takes   = "takes"
	slow    = "is slow"
	refuses = "refuses"
	ignores = "does not answer"
	forgets = "hangs up on what it took"
)

// receiverPort is where all webhooks go; the last part of their path is the
// number of their order.
const receiverPort = 9000

// giveHooks gives some orders a webhook. Its chance is its own: the rest of the
// plan is as it would be without.
func giveHooks(seed uint64, orders []order) {
	r := rand.New(rand.NewPCG(seed, 4))
	for i := range orders {
		if r.IntN(5) > 0 {
			continue
		}
		orders[i].hook = []string{takes, takes, takes, slow, slow, refuses, ignores, forgets}[r.IntN(8)]
		if r.IntN(4) == 0 {
			orders[i].events = []string{"task.succeeded", "task.dead"}
		}
	}
}

// webhook is what a submit asks for; nil: nothing.
func (o order) webhook(n int) *task.Webhook {
	if o.hook == "" {
		return nil
	}
	return &task.Webhook{URL: fmt.Sprintf("http://localhost:%d/%d", receiverPort, n), Events: o.events}
}

// heard is one call of the receiver.
type heard struct {
	at   time.Time
	body string
}

// receiver is where webhooks go.
type receiver struct {
	w        *world
	verifier *callback.Verifier
	server   *http.Server
	serving  sync.WaitGroup

	mu     sync.Mutex
	orders []order
	events map[string][]heard // by webhook-id, as they came
}

func (w *world) openReceiver() {
	keys, err := resultsvc.DefaultConfig().WebhookKeys()
	w.must(err)
	verifier, err := callback.NewVerifier(keys.Secret(auth.DevTenant))
	w.must(err)
	ln, err := w.net.Listen("tcp", fmt.Sprintf("localhost:%d", receiverPort))
	w.must(err)
	to := &receiver{w: w, verifier: verifier, events: map[string][]heard{}}
	to.server = &http.Server{Handler: to}
	to.serving.Go(func() { _ = to.server.Serve(ln) })
	w.receiver = to
}

func (to *receiver) close() {
	_ = to.server.Close()
	to.serving.Wait()
}

// ServeHTTP implements http.Handler.
func (to *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // its sender was killed
	}
	id := r.Header.Get("webhook-id")
	if err := to.verifier.Verify(r.Header, body); err != nil {
		to.w.fault("webhook", "event %s: %v", id, err)
	}
	behaves := takes
	if n, err := strconv.Atoi(path.Base(r.URL.Path)); err != nil {
		to.w.fault("webhook", "event %s: path %s", id, r.URL.Path)
	} else if to.hear(id, string(body)) == 1 {
		behaves = to.orders[n].hook
	}
	switch behaves {
	case slow:
		time.Sleep(3 * time.Second)
	case refuses:
		w.WriteHeader(http.StatusInternalServerError)
	case ignores:
		<-r.Context().Done()
	case forgets:
		panic(http.ErrAbortHandler)
	}
}

// hear notes a call, and says the how many-th of its event it is.
func (to *receiver) hear(id, body string) int {
	to.mu.Lock()
	defer to.mu.Unlock()
	to.events[id] = append(to.events[id], heard{time.Now(), body})
	return len(to.events[id])
}

func (to *receiver) of(id string) []heard {
	to.mu.Lock()
	defer to.mu.Unlock()
	return to.events[id]
}

// all are the calls of each event so far.
func (to *receiver) all() map[string][]heard {
	to.mu.Lock()
	defer to.mu.Unlock()
	out := make(map[string][]heard, len(to.events))
	for id, calls := range to.events {
		out[id] = calls[:len(calls):len(calls)]
	}
	return out
}

// patience of the checks for what the second attempt brings, and the third, if a
// crash took the place of one.
const patience = 10 * time.Minute

// checkHooks: whoever asked is told each end at least once, and nobody is told
// anything but an end that won.
func (l *logs) checkHooks(callers []*caller) {
	for _, c := range callers {
		if hook := c.o.webhook(c.n); hook != nil && c.id != "" {
			c.checkTold(l, hook)
		}
	}
	for id, calls := range l.w.receiver.all() {
		l.checkCalls(id, calls)
	}
}

// checkTold awaits the calls that a task's ends are told by, and looks whether
// its owner is shown that they were taken.
func (c *caller) checkTold(l *logs, hook *task.Webhook) {
	var ids []string
	for generation, end := range winnersOf(l.outcomes[c.id]) {
		id := webhook.EventID(c.id, uint8(generation))
		if !webhook.Wants(hook, webhook.TypeOf(hook.Form, &end)) {
			if n := len(c.w.receiver.of(id)); n > 0 {
				c.w.fault("webhook", "task %s (%s) ended as %s, which is not to be told, and was %d times", c.id, c.o.prompt, end.Status, n)
			}
			continue
		}
		ids = append(ids, id)
		if !within(patience, func() bool { return len(c.w.receiver.of(id)) > 0 }) {
			c.w.fault("webhook", "task %s (%s) ended as %s in generation %d, and nobody was told: %+v", c.id, c.o.prompt, end.Status, generation, c.deliveries())
		}
	}
	ids = ids[max(0, len(ids)-webhook.MaxGenerations):]
	if !within(patience, func() bool { return delivered(c.deliveries(), ids) }) {
		c.w.fault("webhook", "task %s (%s): the events %v were taken, its log shows %+v", c.id, c.o.prompt, ids, c.deliveries())
	}
}

// deliveries is what some instance shows of them.
func (c *caller) deliveries() []webhook.Delivery {
	ctx, cancel := context.WithTimeout(c.w.t.Context(), 10*time.Second)
	defer cancel()
	log, err := c.w.client(c.r).Webhook(ctx, c.id)
	if err != nil {
		c.allow("webhook log", err)
	}
	return log.Deliveries
}

// delivered reports whether a log has so many events, and no others, and all of
// them were taken.
func delivered(got []webhook.Delivery, ids []string) bool {
	for i, d := range got {
		if i >= len(ids) || d.ID != ids[i] || d.State != webhook.Delivered {
			return false
		}
	}
	return len(got) == len(ids)
}

// checkCalls holds what was told by an event against the log. Events may be of
// tasks that no caller knows, since a produce whose outcome is unknown may have
// been one.
func (l *logs) checkCalls(id string, calls []heard) {
	var event webhook.Event
	l.w.must(json.Unmarshal([]byte(calls[0].body), &event))
	winners := winnersOf(l.outcomes[event.Data.ID])
	generation := event.Data.Generation
	if int(generation) >= len(winners) || id != webhook.EventID(event.Data.ID, generation) {
		l.w.fault("webhook", "event %s tells of generation %d of task %s, which has %d", id, generation, event.Data.ID, len(winners))
		return
	}
	want, err := webhook.BodyOf(task.FormTask, &winners[generation], generation, "/v1/tasks/"+string(event.Data.ID))
	l.w.must(err)
	for _, call := range calls {
		if call.body != string(want) {
			l.w.fault("webhook", "event %s of %s told\n%s\nand the end that won is\n%s", id, call.at.Format(clock), call.body, want)
		}
	}
}

// within reports whether a condition comes to hold in a time.
func within(limit time.Duration, holds func() bool) bool {
	for deadline := time.Now().Add(limit); !holds(); time.Sleep(time.Second) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}
