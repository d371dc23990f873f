package webhook

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/schema/topic"
)

const (
	// maxViews bounds the logs that wait to be shown; beyond it new ones are left
	// out until Redis takes some.
	maxViews = 10_000
	// showEvery is how long logs are gathered, and restoreEvery how often it is
	// asked whether Redis still has what it was shown.
	showEvery    = 100 * time.Millisecond
	restoreEvery = time.Second
	// restoreTimeout bounds one restoration; what it did stays done.
	restoreTimeout = 10 * time.Minute
)

// show has a log shown to its task's owner. The lock is held.
func (c *Courier) show(l taskstore.WebhookLog) {
	if _, known := c.views[l.Subject()]; known || len(c.views) < maxViews {
		c.views[l.Subject()] = l
	}
}

// showLogs writes logs to Redis until ctx is done. While Redis is away they
// wait.
func (c *Courier) showLogs(ctx context.Context) {
	told := false
	for lifecycle.Pause(ctx, showEvery) {
		err := c.put(ctx, c.takeViews())
		if err != nil && !told && ctx.Err() == nil {
			c.d.Log.Warn("show logs of webhooks", "err", err)
		}
		told = err != nil
	}
}

// takeViews takes what waits to be shown.
func (c *Courier) takeViews() []taskstore.WebhookLog {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]taskstore.WebhookLog, 0, len(c.views))
	for _, l := range c.views {
		out = append(out, l)
	}
	clear(c.views)
	return out
}

// put shows logs; those that could not be shown wait again, unless there is
// news of them.
func (c *Courier) put(ctx context.Context, logs []taskstore.WebhookLog) error {
	if len(logs) == 0 {
		return nil
	}
	err := c.d.Logs.PutWebhooks(ctx, logs)
	if err == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range logs {
		if _, newer := c.views[l.Subject()]; !newer {
			c.show(l)
		}
	}
	return err
}

// keepLogs restores the logs of partitions that Redis has lost, until ctx is
// done.
func (c *Courier) keepLogs(ctx context.Context) {
	for lifecycle.Pause(ctx, restoreEvery) {
		owned := c.live()
		if len(owned) == 0 {
			continue
		}
		lost, err := c.d.Logs.WebhooksLost(ctx, owned)
		if err != nil {
			continue // Redis is away: asked again
		}
		for _, number := range lost {
			if err := c.restore(ctx, number); err != nil && ctx.Err() == nil {
				c.d.Log.Warn("restore logs of webhooks", "partition", number, "err", err)
			}
		}
	}
}

func (c *Courier) live() []int32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []int32
	for number, p := range c.owned {
		if p.live {
			out = append(out, number)
		}
	}
	return out
}

// restore folds a partition's log once more, beside the ledger that the
// deliveries are made from, and shows what comes of it.
func (c *Courier) restore(ctx context.Context, number int32) error {
	b, err := c.bounds(ctx, topic.Webhooks)
	if err != nil {
		return err
	}
	if b.start(number) < b.end(number) {
		if err := c.showAgain(ctx, number, b.start(number), b.end(number)); err != nil {
			return err
		}
		c.d.Log.Info("logs of webhooks restored", "partition", number, "records", b.end(number)-b.start(number))
	}
	return c.d.Logs.WebhooksRestored(ctx, number)
}

func (c *Courier) showAgain(ctx context.Context, number int32, from, to int64) error {
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	cl, err := c.scanner()
	if err != nil {
		return err
	}
	defer cl.Close()
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic.Webhooks: {number: kgo.NewOffset().At(from)}})
	once := newLedger(from, &room{maxEntries: c.p.MaxEntries, refuse: func() {}})
	for once.next < to {
		fetches := cl.PollRecords(ctx, pollRecords)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("read webhooks again: %w", err)
		}
		if err := c.put(ctx, refold(once, c.decode(fetches.Records()))); err != nil {
			return err
		}
	}
	return nil
}

// refold folds steps and returns the logs that they changed, as they then are.
func refold(l *ledger, steps []step) []taskstore.WebhookLog {
	views := map[string]taskstore.WebhookLog{}
	for _, s := range steps {
		if s.record == nil {
			l.next = s.offset + 1
			continue
		}
		if e, _ := l.fold(s.record, s.offset); e != nil {
			views[e.id] = e.log()
		}
	}
	out := make([]taskstore.WebhookLog, 0, len(views))
	for _, v := range views {
		out = append(out, v)
	}
	return out
}
