package consume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/tasktopic"
)

// Params are the developer's choices for one group; zero values are defaults.
type Params struct {
	Group  string   // consumer group
	Topics []string // every lane of the pool

	MaxRecords     int           // in flight at once, default 8,192; soft by one poll
	MaxBytes       int64         // in flight at once, default 64 MiB; soft by one poll
	LaneRecords    int           // in flight of one partition, default: no limit but the span; soft by one poll
	LaneBytes      int64         // in flight of one partition, default: no limit; soft by one poll
	PollRecords    int           // most records of one poll, default 1,000
	CommitInterval time.Duration // default 1 s
	CommitEvery    int           // settles that bring a commit forward, default 1,000
	RevokeWait     time.Duration // longest a revoke waits for its commit, default 1 s
}

func (p Params) withDefaults() Params {
	if p.MaxRecords == 0 {
		p.MaxRecords = 8192
	}
	if p.MaxBytes == 0 {
		p.MaxBytes = 64 << 20
	}
	if p.LaneRecords == 0 {
		p.LaneRecords = Span
	}
	if p.LaneBytes == 0 {
		p.LaneBytes = math.MaxInt64
	}
	if p.PollRecords == 0 {
		p.PollRecords = 1000
	}
	if p.CommitInterval == 0 {
		p.CommitInterval = time.Second
	}
	if p.CommitEvery == 0 {
		p.CommitEvery = 1000
	}
	if p.RevokeWait == 0 {
		p.RevokeWait = time.Second
	}
	return p
}

// ErrRecreated is returned when a topic was deleted and made anew under us:
// its offsets mean other records now, so the group stops and an operator looks.
var ErrRecreated = errors.New("topic was recreated")

// Group is one member of a pool's consumer group.
//
// One lock guards every partition's tracker and revoked flag, the limits and
// the pauses. Nothing waits while holding it; the client's pause switches are
// flipped under it, so that they never disagree with what is recorded here.
type Group struct {
	p      Params
	log    *slog.Logger
	sink   Sink
	cl     *kgo.Client
	m      *metrics
	commit chan struct{} // holds one token: whoever has it may commit
	nudge  chan struct{} // holds one wish for an early commit

	mu      sync.Mutex
	owners  map[lane]*owner
	records int    // in flight
	bytes   int64  // in flight
	full    bool   // a limit was reached and half of it is not free yet
	settled int    // since the last commit began
	asked   *proof // answered by the next commit; nil: nobody asks
	stopped bool   // Poll has returned: a backlog stays where it is
}

// lane is a partition of a topic.
type lane struct {
	topic     string
	partition int32
}

// owner is one assignment of one partition.
type owner struct {
	group      *Group
	at         lane
	topicID    [16]byte // as fetched: a commit must not reach a topic made anew
	generation int32
	revoked    bool // set for good when the partition is taken away
	track      *Tracker
	pending    map[int64]*Delivery // handed out, neither settled nor released
	bytes      int64               // of pending
	backlog    []*kgo.Record       // polled beyond the span
	wide       bool                // the span or a limit of its own is used up and half of it is not free yet
	paused     bool                // as told to the client
	dirty      bool                // settled since the last commit
	end        int64               // the log's end, as last seen
}

// Open makes the group's client. It does no I/O; Poll joins.
func Open(kc kafkaclient.Config, p Params, sink Sink, log *slog.Logger, reg prometheus.Registerer) (*Group, error) {
	p = p.withDefaults()
	g := &Group{
		p: p, sink: sink, owners: map[lane]*owner{},
		log:    log.With("group", p.Group),
		commit: make(chan struct{}, 1),
		nudge:  make(chan struct{}, 1),
	}
	g.m = newMetrics(reg, p.Group, g)
	opts := append(kafkaclient.GroupOpts(p.Group, p.Topics...),
		kgo.OnPartitionsAssigned(g.assigned),
		kgo.OnOffsetsFetched(g.fetched),
		kgo.OnPartitionsRevoked(g.revoked),
		kgo.OnPartitionsLost(g.lost),
		// A poll's records are handed to their owners before a rebalance may
		// change who those are. The hand-over never waits, so a rebalance is
		// held up for microseconds; what this option is feared for, holding it
		// while work is done, does not happen.
		kgo.BlockRebalanceOnPoll(),
	)
	cl, err := kafkaclient.New(kc, log, opts...)
	if err != nil {
		return nil, fmt.Errorf("open group %s: %w", p.Group, err)
	}
	g.cl = cl
	return g, nil
}

// Joined reports whether this member is in the group now, with or without
// partitions.
func (g *Group) Joined() bool {
	member, generation := g.cl.GroupMetadata()
	return member != "" && generation >= 0
}

// Poll joins the group and hands records to the sink until ctx is done, or a
// topic was recreated. Commits go on without it.
func (g *Group) Poll(ctx context.Context) error {
	defer g.stop()
	for {
		fetches := g.cl.PollRecords(ctx, g.p.PollRecords)
		if ctx.Err() == nil {
			g.handOver(fetches)
		}
		g.cl.AllowRebalance()
		if ctx.Err() != nil || fetches.IsClientClosed() {
			return nil
		}
		if err := g.fetchErrors(fetches); err != nil {
			return err
		}
	}
}

func (g *Group) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopped = true
}

func (g *Group) fetchErrors(fetches kgo.Fetches) error {
	var fatal error
	fetches.EachError(func(topic string, partition int32, err error) {
		g.m.fetchErrors.Inc()
		g.log.Warn("fetch failed", "topic", topic, "partition", partition, "err", err)
		if errors.Is(err, kerr.UnknownTopicID) {
			fatal = fmt.Errorf("consume %s: %w: %w", topic, ErrRecreated, err)
		}
	})
	return fatal
}

func (g *Group) handOver(fetches kgo.Fetches) {
	g.mu.Lock()
	defer g.mu.Unlock()
	fetches.EachTopic(func(t kgo.FetchTopic) {
		t.EachPartition(func(p kgo.FetchPartition) { g.handOverOne(t, p) })
	})
	g.flow()
}

func (g *Group) handOverOne(t kgo.FetchTopic, p kgo.FetchPartition) {
	o, ok := g.owners[lane{t.Topic, p.Partition}]
	if !ok || len(p.Records) == 0 {
		return
	}
	o.topicID, o.end = t.TopicID, p.HighWatermark
	if o.track == nil { // no commit: whatever comes first is the beginning
		o.track = NewTracker(p.Records[0].Offset)
	}
	if gone := p.LogStartOffset - o.track.Next(); gone > 0 && o.track.Next() > 0 {
		g.m.lostRecords.Add(float64(gone))
		g.log.Error("the log's start passed what was not read yet", "topic", t.Topic, "partition", p.Partition, "records", gone)
	}
	o.backlog = append(o.backlog, p.Records...)
	g.drain(o)
}

// drain hands out an owner's backlog as far as the span allows.
func (g *Group) drain(o *owner) {
	var out []*Delivery
	n := 0
	for _, r := range o.backlog {
		if g.stopped {
			break
		}
		verdict := o.track.Deliver(r.Offset)
		if verdict == Rewound {
			g.rewind(o, r.Offset)
			verdict = o.track.Deliver(r.Offset)
		}
		if verdict == Full {
			break
		}
		n++
		o.dirty = true
		if verdict == Fresh {
			out = append(out, g.hand(o, r))
		}
	}
	if o.backlog = o.backlog[n:]; len(o.backlog) == 0 {
		o.backlog = nil
	}
	if len(out) > 0 {
		g.sink.Deliver(out)
	}
}

// rewind follows a log that went back. What is in flight settles against the
// old tracker, which nobody commits any more.
func (g *Group) rewind(o *owner, offset int64) {
	g.m.rewinds.Inc()
	g.log.Error("the log went back: records are read again", "topic", o.at.topic, "partition", o.at.partition,
		"offset", offset, "expected", o.track.Next())
	o.track = NewTracker(offset)
	o.pending, o.bytes = map[int64]*Delivery{}, 0
}

func (g *Group) hand(o *owner, r *kgo.Record) *Delivery {
	d := &Delivery{
		Record: tasktopic.FromKgo(r), Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp,
		Group: o.generation, holder: holder{g}, owner: o, track: o.track, bytes: len(r.Key) + len(r.Value),
	}
	o.pending[r.Offset] = d
	o.bytes += int64(d.bytes)
	g.records++
	g.bytes += int64(d.bytes)
	return d
}

// finish ends a delivery's time in flight.
func (g *Group) finish(d *Delivery, settled bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if d.gone {
		return
	}
	d.gone = true
	g.records--
	g.bytes -= int64(d.bytes)
	o := d.owner
	if d.track == o.track {
		delete(o.pending, d.Offset)
		o.bytes -= int64(d.bytes)
	}
	if settled && !o.revoked && d.track == o.track && o.track.Settle(d.Offset) {
		o.dirty = true
		g.drain(o)
		g.countSettled()
	}
	g.flow()
}

func (g *Group) countSettled() {
	if g.settled++; g.settled != g.p.CommitEvery {
		return
	}
	select {
	case g.nudge <- struct{}{}:
	default: // one wish is enough
	}
}

// Blocked returns the head deliveries that hold a nearly full span by
// themselves: more than 90 % of the span is used, and at least 98 % of that is
// settled. Parking them elsewhere frees the partition.
func (g *Group) Blocked() []*Delivery {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []*Delivery
	for _, o := range g.owners {
		if o.track == nil || o.track.Width() <= Span*9/10 || len(o.pending)*50 > o.track.Width() {
			continue
		}
		if d, ok := o.pending[o.track.Watermark()]; ok {
			out = append(out, d)
		}
	}
	return out
}

// Lag returns how many records lie between the settled watermarks and the
// logs' ends, and when the oldest unsettled record in flight was written (zero
// if none is).
func (g *Group) Lag() (records int64, oldest time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, o := range g.owners {
		if o.track == nil {
			continue
		}
		records += max(0, o.end-o.track.Watermark())
		if d, ok := o.pending[o.track.Watermark()]; ok && (oldest.IsZero() || d.Timestamp.Before(oldest)) {
			oldest = d.Timestamp
		}
	}
	return records, oldest
}

// InFlight returns the records handed out and neither settled nor released.
func (g *Group) InFlight() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.records
}
