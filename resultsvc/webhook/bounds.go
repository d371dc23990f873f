package webhook

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/webhook"
)

// sweepEvery is how often what nothing can be told of any more is looked for.
const sweepEvery = time.Minute

// keepBounds keeps what this process holds within its bounds, and says how much
// it is, until ctx is done.
func (c *Courier) keepBounds(ctx context.Context) {
	swept := time.Now()
	for lifecycle.Pause(ctx, c.p.Check) {
		now := c.d.Publisher.BrokerNow().UTC()
		if time.Since(swept) >= sweepEvery {
			swept = time.Now()
			c.sweep(now)
		}
		c.shed(now)
		c.measure(now)
	}
}

func (c *Courier) sweep(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.owned {
		p.ledger.expire(func(id string, ended time.Time) bool { return c.goneBy(id, ended, now) })
	}
	c.hosts.forgetIdle(time.Now())
}

// announcedFor is how long a batch may be announced again: its record is deleted
// by then, unless an operator keeps them longer.
const announcedFor = 8 * 24 * time.Hour

// goneBy reports whether nothing is told of a task or a batch any more.
func (c *Courier) goneBy(id string, ended, now time.Time) bool {
	if made := task.ID(id).Time(); !made.IsZero() {
		return c.p.Gone(task.ID(id), now)
	}
	return now.Sub(ended) > announcedFor
}

// shed gives deliveries up when there are more than this process may hold:
// those first that have failed most often.
func (c *Courier) shed(now time.Time) {
	for _, w := range c.victims(now) {
		c.d.Log.Warn("webhook given up: too many wait for receivers that do not answer", "subject", w.Subject())
		c.d.Publisher.WebhookAsync(w, func(tasktopic.Ack, error) {}) // one that is not written is found again
	}
}

func (c *Courier) victims(now time.Time) []*webhook.Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	count, bytes := c.room.deliveries-c.p.MaxDeliveries, c.room.bytes-c.p.MaxBytes
	if count <= 0 && bytes <= 0 {
		return nil
	}
	pending := c.pending()
	slices.SortFunc(pending, func(a, b *delivery) int {
		return cmp.Or(cmp.Compare(len(b.attempts), len(a.attempts)), b.endedAt.Compare(a.endedAt))
	})
	var out []*webhook.Record
	for _, d := range pending {
		if count <= 0 && bytes <= 0 {
			break
		}
		count, bytes = count-1, bytes-len(d.body)
		w := d.entry.record(webhook.Settled, d.generation, now)
		w.State = webhook.GivenUp
		out = append(out, w)
	}
	return out
}

// pending are the deliveries that are not settled, of partitions that are read.
// The lock is held.
func (c *Courier) pending() []*delivery {
	var out []*delivery
	for _, p := range c.owned {
		if !p.live {
			continue
		}
		for _, e := range p.ledger.entries {
			for _, d := range e.deliveries {
				if !d.settled() {
					out = append(out, d)
				}
			}
		}
	}
	return out
}

// measure shows what is held.
func (c *Courier) measure(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	replaying := 0
	for _, p := range c.owned {
		if !p.live {
			replaying++
		}
	}
	c.metrics.entries.Set(float64(c.room.entries))
	c.metrics.pending.Set(float64(c.room.deliveries))
	c.metrics.bytes.Set(float64(c.room.bytes))
	c.metrics.late.Set(c.hosts.late(now).Seconds())
	c.metrics.resting.Set(float64(c.hosts.resting()))
	c.metrics.partitions.Set(float64(len(c.owned)))
	c.metrics.replaying.Set(float64(replaying))
}
