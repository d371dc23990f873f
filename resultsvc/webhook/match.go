package webhook

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/webhook"
	"github.com/penstock/penstock/schema/wire"
)

const (
	// gather is the least time between two looks at the results: where they are
	// many, more of them share the questions to the brokers.
	gather = 50 * time.Millisecond
	// matchers is how many partitions are matched side by side.
	matchers = 4
	// stale is after how long a ledger that does not move is compared with the
	// start of its log, which retention may have moved past it.
	stale = time.Second
)

// matchResults finds the ends of tasks that somebody wants to hear of, until
// ctx is done.
func (c *Courier) matchResults(ctx context.Context) {
	for {
		fetches := c.results.PollRecords(ctx, pollRecords)
		if ctx.Err() != nil {
			return
		}
		began := time.Now()
		fetches.EachError(func(_ string, number int32, err error) {
			c.d.Log.Warn("fetch results for webhooks", "partition", number, "err", err) // the client goes on by itself
		})
		fetches.EachTopic(func(t kgo.FetchTopic) { c.fetchedFrom(t.TopicID) })
		c.matchAll(ctx, fetches)
		if !lifecycle.Pause(ctx, gather-time.Since(began)) {
			return
		}
	}
}

func (c *Courier) matchAll(ctx context.Context, fetches kgo.Fetches) {
	if fetches.NumRecords() == 0 {
		return
	}
	ends, ok := c.logEnds(ctx)
	if !ok {
		return
	}
	var g errgroup.Group
	g.SetLimit(matchers)
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		if len(f.Records) > 0 {
			g.Go(func() error {
				c.match(ctx, f.Partition, f.Records, offsetOf(ends, topic.Webhooks, f.Partition))
				return nil
			})
		}
	})
	_ = g.Wait() // match handles its own errors
}

// logEnds asks where the log ends, after results were fetched: whatever was
// registered before their tasks was written lies before it.
func (c *Courier) logEnds(ctx context.Context) (kadm.ListedOffsets, bool) {
	for try := 0; ; try++ {
		ends, err := kadm.NewClient(c.results).ListEndOffsets(ctx, topic.Webhooks)
		if err == nil {
			err = ends.Error()
		}
		if err == nil {
			return ends, true
		}
		if try == 0 && ctx.Err() == nil {
			c.d.Log.Warn("find end of webhooks", "err", err)
		}
		if !lifecycle.Pause(ctx, backoff(try)) {
			return nil, false
		}
	}
}

// match finds the ends among fetched results, writes them down and moves the
// position, as long as the partition is ours.
func (c *Courier) match(ctx context.Context, number int32, records []*kgo.Record, end int64) {
	p := c.await(ctx, number, end)
	if p == nil || !c.continues(ctx, p, records[0].Offset) {
		return
	}
	ends := c.decodeEnds(p, records)
	if !c.write(ctx, p, c.found(p, ends)) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p.position = max(p.position, records[len(records)-1].Offset+1)
}

// await returns the partition once its ledger has reached an offset of the
// log; nil if it is not ours any more.
func (c *Courier) await(ctx context.Context, number int32, end int64) *partition {
	for {
		c.mu.Lock()
		p, moved := c.owned[number], c.read
		reached := p != nil && p.live && p.ledger.next >= end
		c.mu.Unlock()
		if p == nil || reached {
			return p
		}
		timer := time.NewTimer(stale)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-moved:
			timer.Stop()
		case <-timer.C:
			c.skipDeleted(ctx, p)
		}
	}
}

// skipDeleted takes a ledger over records that retention has deleted.
func (c *Courier) skipDeleted(ctx context.Context, p *partition) {
	starts, err := kadm.NewClient(c.results).ListStartOffsets(ctx, topic.Webhooks)
	if err != nil || starts.Error() != nil {
		return // looked at again
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if start := offsetOf(starts, topic.Webhooks, p.number); start > p.ledger.next && !p.gone {
		p.ledger.next = start
		c.goLive(p)
		c.tell()
	}
}

// continues reports whether records that begin at an offset leave none out. If
// they do because retention deleted some, that is told and accepted. Else they
// were fetched for an owner that we were before, and are read again.
func (c *Courier) continues(ctx context.Context, p *partition, first int64) bool {
	c.mu.Lock()
	position := p.position
	c.mu.Unlock()
	if first <= position {
		return true
	}
	b, err := c.bounds(ctx, topic.Results)
	if err == nil && b.start(p.number) >= first {
		c.d.Log.Error("results were deleted before webhooks were told of them: raise the retention of the topic", "topic", topic.Results,
			"partition", p.number, "offset", position, "records", first-position)
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !p.gone {
		c.seek(p)
	}
	return false
}

// ending is a terminal, or a reopening, of a task that somebody wants to hear
// of.
type ending struct {
	terminal *terminal.Terminal
	offset   int64
}

// decodeEnds reads the records that matter; most tasks have no webhook.
func (c *Courier) decodeEnds(p *partition, records []*kgo.Record) []ending {
	var out []ending
	for _, r := range c.ofInterest(p, records) {
		t, err := wire.DecodeTerminal(tasktopic.FromKgo(r))
		if err != nil {
			c.d.Log.Warn("undecodable result passed over", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset)
			continue
		}
		out = append(out, ending{t, r.Offset})
	}
	return out
}

func (c *Courier) ofInterest(p *partition, records []*kgo.Record) []*kgo.Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*kgo.Record
	for _, r := range records {
		if r.Offset >= p.position && p.ledger.entries[string(r.Key)] != nil {
			out = append(out, r)
		}
	}
	return out
}

// found folds the endings and returns what they change.
func (c *Courier) found(p *partition, ends []ending) []*webhook.Record {
	now := c.d.Publisher.BrokerNow().UTC()
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*webhook.Record
	for _, end := range ends {
		if c.p.Gone(end.terminal.TaskID, now) { // as everywhere: it counts no more
			continue
		}
		if e, won := p.ledger.match(end.terminal, end.offset); won {
			out = append(out, c.recordOf(e, end, now))
		}
	}
	return out
}

// recordOf is what is written down of an ending that took effect.
func (c *Courier) recordOf(e *entry, end ending, now time.Time) *webhook.Record {
	w := e.record(webhook.Reopened, e.state.Generation, now)
	w.Offset = end.offset
	if e.state.Open() {
		return w
	}
	w.Step, w.Status = webhook.Ended, e.state.Status
	if e.disabled || !webhook.Wants(e.hook, webhook.TypeOf(e.hook.Form, end.terminal)) {
		return w
	}
	body, err := webhook.BodyOf(e.hook.Form, end.terminal, w.Generation, c.p.StatusURL(w.TaskID))
	if err != nil { // what was decoded can be encoded
		c.d.Log.Error("encode webhook event", "task_id", e.id, "err", err)
	}
	w.Event = body
	return w
}

// write writes records of one partition in their order and tries again until
// all are acknowledged. False if ctx or the ownership ended first: then some
// may be written, which is harmless.
func (c *Courier) write(ctx context.Context, p *partition, records []*webhook.Record) bool {
	for try := 0; len(records) > 0; try++ {
		done, err := c.writeOnce(records)
		if records = records[done:]; len(records) == 0 {
			break
		}
		if try == 0 {
			c.d.Log.Warn("write webhooks", "partition", p.number, "err", err)
		}
		if c.isGone(p) || !lifecycle.Pause(ctx, backoff(try)) {
			return false
		}
	}
	return true
}

// writeOnce returns how many records were acknowledged before the first that
// was not. Those behind it are written again, so that all stay in order.
func (c *Courier) writeOnce(records []*webhook.Record) (int, error) {
	errs := make([]chan error, len(records))
	for i, w := range records {
		answer := make(chan error, 1) // one answer, whether or not anybody still waits
		errs[i] = answer
		c.d.Publisher.WebhookAsync(w, func(_ tasktopic.Ack, err error) { answer <- err })
	}
	for i, answer := range errs {
		if err := <-answer; err != nil {
			return i, err
		}
	}
	return len(records), nil
}

func (c *Courier) isGone(p *partition) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return p.gone
}
