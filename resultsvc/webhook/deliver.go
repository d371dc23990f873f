package webhook

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/schema/webhook"
)

// look is how often hosts that rest are looked at while somebody waits for
// them.
const look = time.Second

// dispatch makes the attempts that are due until ctx is done. Those in flight
// then have a little time to end; what is cut is tried again by the next owner.
func (c *Courier) dispatch(ctx context.Context) {
	flying, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var wg sync.WaitGroup
	for {
		flights, next := c.ready()
		for _, f := range flights {
			wg.Go(func() { c.fly(flying, f) })
		}
		var timer <-chan time.Time
		if next > 0 {
			timer = time.After(next)
		}
		select {
		case <-ctx.Done():
			grace := time.AfterFunc(c.p.Grace, cut)
			defer grace.Stop()
			wg.Wait()
			return
		case <-c.changed:
		case <-timer:
		}
	}
}

// ready takes the attempts to make now, and says after which time to look
// again; 0: when woken.
func (c *Courier) ready() ([]attempt, time.Duration) {
	now := c.d.Publisher.BrokerNow()
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) > 0 && !c.queue[0].at.After(now) {
		d := heap.Pop(&c.queue).(waiting).d
		switch {
		case d.gone || d.settled():
			d.queued = false
		case d.due.After(now): // another owner tried it meanwhile
			c.enqueue(d)
		default:
			c.hosts.add(d)
		}
	}
	var out []attempt
	for _, f := range c.hosts.launch() {
		out = append(out, c.attempt(f, now))
	}
	next := time.Duration(0)
	if len(c.queue) > 0 {
		next = c.queue[0].at.Sub(now)
	}
	if c.hosts.blocked() && (next == 0 || next > look) {
		next = look
	}
	return out, next
}

// attempt is one that is about to be made.
type attempt struct {
	flight
	n    int
	call call
}

func (c *Courier) attempt(f flight, now time.Time) attempt {
	e := f.d.entry
	return attempt{
		flight: f, n: len(f.d.attempts) + 1,
		call: call{url: e.hook.URL, tenant: e.tenant, id: webhook.EventID(e.id, f.d.generation), at: now.UTC(), body: f.d.body},
	}
}

// fly makes an attempt and writes down how it went. Until that is acknowledged
// it keeps its place, so that an outage of Kafka does not call receivers over
// and over.
func (c *Courier) fly(ctx context.Context, a attempt) {
	defer c.wake()
	began := time.Now()
	got := c.sender.send(ctx, a.call, c.p.Timeout)
	if ctx.Err() == nil {
		c.metrics.attempts.WithLabelValues(string(got.outcome)).Inc()
		c.metrics.duration.Observe(time.Since(began).Seconds())
		c.record(ctx, c.outcomeOf(a, got))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hosts.land(a.flight, got.outcome, got.status, time.Now())
	a.d.queued = false
	if len(a.d.attempts) >= a.n && !a.d.settled() && !a.d.gone { // the record was folded before we came here
		c.enqueue(a.d)
	}
}

// outcomeOf is what is written down of an attempt: that another follows, or that
// the delivery is over.
func (c *Courier) outcomeOf(a attempt, got answer) *webhook.Record {
	now := c.d.Publisher.BrokerNow().UTC()
	w := a.d.entry.record(webhook.Settled, a.d.generation, now)
	w.Attempt = &webhook.Attempt{N: a.n, At: a.call.at, Outcome: got.outcome, Status: got.status}
	switch got.outcome {
	case webhook.Accepted:
		w.State = webhook.Delivered
		return w
	case webhook.Gone:
		w.State = webhook.Disabled
		return w
	}
	if after, again := wait(a.n, chance(), got.retryAfter); again {
		w.Step, w.Attempt.Next = webhook.Attempted, now.Add(after)
		return w
	}
	w.State = webhook.GivenUp
	c.d.Log.Warn("webhook given up", "subject", w.Subject(), "event_id", a.call.id, "attempts", a.n, "outcome", got.outcome)
	return w
}

// record writes one step, and tries again until it is acknowledged or ctx is
// done. It does so also for a partition that moved on: what it tells is true,
// and spares the new owner a call.
func (c *Courier) record(ctx context.Context, w *webhook.Record) {
	for try := 0; ; try++ {
		_, err := c.d.Publisher.Webhook(ctx, w)
		if err == nil {
			return
		}
		if try == 0 {
			c.d.Log.Warn("write outcome of a webhook", "subject", w.Subject(), "err", err)
		}
		if !lifecycle.Pause(ctx, backoff(try)) {
			return
		}
	}
}
