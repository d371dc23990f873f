package webhook

import (
	"container/heap"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/webhook"
	"github.com/penstock/penstock/schema/wire"
)

// partition is one that this member owns. The courier's lock guards it.
type partition struct {
	number   int32
	ledger   *ledger
	target   int64 // end of the log when it was taken
	live     bool  // the log was read up to there: results are matched, receivers called
	position int64 // of the results: all before it were matched, and what came of them is written
	told     int64 // the position last committed
	gone     bool  // not ours any more
}

// opts are the options of the group's member, besides those of any.
func (c *Courier) opts() []kgo.Opt {
	return []kgo.Opt{
		kgo.AdjustFetchOffsetsFn(c.assigned),
		kgo.OnPartitionsRevoked(func(ctx context.Context, group *kgo.Client, lost map[string][]int32) {
			c.commit(ctx, group)
			c.leave(lost[topic.Webhooks])
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) { c.leave(lost[topic.Webhooks]) }),
	}
}

// assigned has new partitions read from the start of their log.
func (c *Courier) assigned(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	of := offsets[topic.Webhooks]
	log, err := c.bounds(ctx, topic.Webhooks)
	if err != nil {
		return nil, err
	}
	results, err := c.bounds(ctx, topic.Results)
	if err != nil {
		return nil, err
	}
	committed, err := kadm.NewClient(c.results).FetchOffsetsForTopics(ctx, topic.WebhookGroup, topic.Results)
	if err == nil {
		err = committed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("find position among the results: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, number := range slices.Sorted(maps.Keys(of)) {
		c.leaveOne(number)
		at, known := int64(-1), false
		if o, ok := committed.Lookup(topic.Results, number); ok {
			at, known = o.At, o.At >= 0
		}
		p := &partition{number: number, ledger: newLedger(log.start(number), c.room), target: log.end(number), position: c.place(number, at, known, results)}
		p.told = p.position
		c.owned[number] = p
		of[number] = kgo.NewOffset().At(log.start(number))
		c.goLive(p)
	}
	return offsets, nil
}

// place is where the results of a partition are matched from. To match some
// twice is harmless.
func (c *Courier) place(number int32, at int64, known bool, b bounds) int64 {
	switch {
	case !known:
		return b.start(number)
	case at < b.start(number):
		c.d.Log.Error("results were deleted before webhooks were told of them: raise the retention of the topic", "topic", topic.Results,
			"partition", number, "offset", at, "records", b.start(number)-at)
		return b.start(number)
	case at > b.end(number):
		c.d.Log.Warn("webhooks stand beyond the end of the results, starting over", "partition", number, "offset", at, "end", b.end(number))
		return b.start(number)
	}
	return at
}

// leave gives partitions back.
func (c *Courier) leave(numbers []int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, number := range numbers {
		c.leaveOne(number)
	}
}

func (c *Courier) leaveOne(number int32) {
	p := c.owned[number]
	if p == nil {
		return
	}
	p.gone = true
	p.ledger.drop()
	delete(c.owned, number)
	c.results.RemoveConsumePartitions(map[string][]int32{topic.Results: {number}})
	c.tell()
}

// goLive begins to match results and to call receivers once a partition's log
// was read up to where it ended when the partition was taken.
func (c *Courier) goLive(p *partition) {
	if p.live || p.ledger.next < p.target {
		return
	}
	p.live = true
	for _, e := range p.ledger.entries {
		for _, d := range e.deliveries {
			if !d.settled() {
				c.enqueue(d)
			}
		}
	}
	c.seek(p)
	c.wake()
}

// seek reads the results of a partition from its position on.
func (c *Courier) seek(p *partition) {
	of := map[string]map[int32]kgo.Offset{topic.Results: {p.number: kgo.NewOffset().At(p.position)}}
	c.results.RemoveConsumePartitions(map[string][]int32{topic.Results: {p.number}})
	c.results.AddConsumePartitions(of)
}

// enqueue has a delivery tried when it is due.
func (c *Courier) enqueue(d *delivery) {
	d.queued = true
	heap.Push(&c.queue, waiting{d, d.due})
}

const pollRecords = 4096

// takeover is how old a step may be that the owner before may not have shown.
const takeover = 10 * time.Minute

// foldLog reads the log until ctx is done.
func (c *Courier) foldLog(ctx context.Context, group *kgo.Client) {
	for {
		fetches := group.PollRecords(ctx, pollRecords)
		if ctx.Err() != nil {
			return
		}
		fetches.EachError(func(_ string, number int32, err error) {
			c.d.Log.Warn("fetch webhooks", "partition", number, "err", err) // the client goes on by itself
		})
		fetches.EachPartition(func(f kgo.FetchTopicPartition) { c.fold(f.Partition, f.Records) })
	}
}

// step is one decoded record; nil if it is none of ours.
type step struct {
	record *webhook.Record
	offset int64
}

func (c *Courier) decode(records []*kgo.Record) []step {
	out := make([]step, len(records))
	for i, r := range records {
		w, err := wire.DecodeWebhook(tasktopic.FromKgo(r))
		if err != nil {
			c.d.Log.Warn("undecodable webhook passed over", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset)
		}
		out[i] = step{w, r.Offset}
	}
	return out
}

func (c *Courier) fold(number int32, records []*kgo.Record) {
	if len(records) == 0 {
		return
	}
	steps := c.decode(records)
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.owned[number]
	if p == nil {
		return
	}
	recent := c.d.Publisher.BrokerNow().Add(-takeover)
	for _, s := range steps {
		c.foldOne(p, s, recent)
	}
	c.goLive(p)
	c.tell()
}

func (c *Courier) foldOne(p *partition, s step, recent time.Time) {
	if s.offset < p.ledger.next { // fetched for an owner that we were before
		return
	}
	if s.record == nil {
		p.ledger.next = s.offset + 1
		return
	}
	e, try := p.ledger.fold(s.record, s.offset)
	if e != nil && (p.live || s.record.At.After(recent)) {
		c.show(e.log())
	}
	if !p.live {
		return
	}
	if s.record.Step == webhook.Settled {
		c.metrics.settled.WithLabelValues(string(s.record.State)).Inc()
	}
	if try != nil && !try.queued {
		c.enqueue(try)
		c.wake()
	}
}

// bounds are the ends of a topic's partitions.
type bounds struct {
	topic        string
	starts, ends kadm.ListedOffsets
}

func (c *Courier) bounds(ctx context.Context, of string) (bounds, error) {
	adm := kadm.NewClient(c.results)
	b := bounds{topic: of}
	var err error
	for _, list := range []struct {
		to  *kadm.ListedOffsets
		ask func(context.Context, ...string) (kadm.ListedOffsets, error)
	}{{&b.starts, adm.ListStartOffsets}, {&b.ends, adm.ListEndOffsets}} {
		if *list.to, err = list.ask(ctx, of); err == nil {
			err = list.to.Error()
		}
		if err != nil {
			return b, fmt.Errorf("list offsets of %s: %w", of, err)
		}
	}
	return b, nil
}

func (b bounds) start(number int32) int64 { return offsetOf(b.starts, b.topic, number) }
func (b bounds) end(number int32) int64   { return offsetOf(b.ends, b.topic, number) }

func offsetOf(l kadm.ListedOffsets, of string, number int32) int64 {
	o, _ := l.Lookup(of, number)
	return o.Offset
}
