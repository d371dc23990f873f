// Package project writes what lies on a topic into Redis: the terminals of
// `penstock.results`, and what `penstock.conversations` remembers. It is the one
// consumer group of each.
//
// Guarantee: every record takes effect in Redis once and in the order of its
// partition. Where to go on comes from Redis itself, not from the group's
// commits: a Redis that lost its data, even with no result coming in, is
// noticed within a second and filled again from the start of the log. While
// Redis is down nothing is fetched and nothing is skipped. Commits are made for
// those who watch the lag.
package project

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/internal/convstore"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/projection"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
)

// Store is where the records of a topic go.
type Store[R any] interface {
	Apply(ctx context.Context, partition int32, from, upTo int64, recs []R) error
	Rebuild(ctx context.Context, partition int32, start, target int64) error
	Replace(ctx context.Context, partition int32, stale, start, target int64) (bool, error)
	Projections(ctx context.Context, partitions []int32) ([]projection.Position, error)
}

// Log is a topic and where it is projected to.
type Log[R any] struct {
	Topic  string
	Group  string
	Store  Store[R]
	Decode func(r *kgo.Record) (R, error) // what cannot be decoded is counted and passed over
}

// Results is the log of terminals.
func Results(store Store[taskstore.Applied]) Log[taskstore.Applied] {
	return Log[taskstore.Applied]{
		Topic: topic.Results, Group: topic.ProjectorGroup, Store: store,
		Decode: func(r *kgo.Record) (taskstore.Applied, error) {
			t, err := wire.DecodeTerminal(tasktopic.FromKgo(r))
			return taskstore.Applied{Terminal: t, Offset: r.Offset}, err
		},
	}
}

// Conversations is the log of what is remembered.
func Conversations(store Store[convstore.Applied]) Log[convstore.Applied] {
	return Log[convstore.Applied]{
		Topic: topic.Conversations, Group: topic.ConversationGroup, Store: store,
		Decode: func(r *kgo.Record) (convstore.Applied, error) {
			c, err := wire.DecodeConversation(tasktopic.FromKgo(r))
			return convstore.Applied{Record: c, Offset: r.Offset}, err
		},
	}
}

// Params are the developer's choices; zero values are the defaults.
type Params struct {
	Check    time.Duration // how often Redis is compared with where we stand; default 1 s
	Poll     int           // records taken from the client at a time; default 4096
	Parallel int           // partitions applied side by side; default 4
}

// Projector is one member of the group of a log.
type Projector[R any] struct {
	of      Log[R]
	p       Params
	log     *slog.Logger
	metrics *metrics

	client  chan *kgo.Client // 1 slot: filled by Run, for the callbacks
	mu      sync.Mutex
	owned   map[int32]int64 // partition to the offset it goes on at
	changed bool            // positions moved since the last commit
	topicID [16]byte        // of the topic, as fetched
}

// New returns a projector; it reads nothing before Run.
func New[R any](of Log[R], p Params, log *slog.Logger, reg prometheus.Registerer) *Projector[R] {
	if p.Check == 0 {
		p.Check = time.Second
	}
	if p.Poll == 0 {
		p.Poll = 4096
	}
	if p.Parallel == 0 {
		p.Parallel = 4
	}
	return &Projector[R]{
		of: of, p: p, log: log.With("topic", of.Topic), metrics: newMetrics(of.Topic, reg),
		client: make(chan *kgo.Client, 1), owned: map[int32]int64{},
	}
}

// fetchPartition is small, so that what is polled at a time is of several
// partitions, which are applied side by side. A larger record still fits.
const fetchPartition = 512 << 10

// opts are the options of a member of the log's group that consumes its topic.
func (p *Projector[R]) opts() []kgo.Opt {
	return append(kafkaclient.GroupOpts(p.of.Group, p.of.Topic),
		kgo.FetchMaxPartitionBytes(fetchPartition),
		kgo.AdjustFetchOffsetsFn(p.assigned),
		kgo.OnPartitionsRevoked(p.lost),
		kgo.OnPartitionsLost(p.lost),
	)
}

// assigned decides where new partitions begin: where Redis stands. Redis may be
// down: then they begin where the group stands, and the check puts them right.
func (p *Projector[R]) assigned(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	var cl *kgo.Client
	select {
	case cl = <-p.client:
		p.client <- cl
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	of := offsets[p.of.Topic]
	partitions := slices.Sorted(maps.Keys(of))
	bounds, err := listBounds(ctx, cl, p.of.Topic)
	if err != nil {
		return nil, err
	}
	places, err := p.place(ctx, partitions, bounds)
	if err != nil {
		p.log.Warn("place projector", "err", err)
		places = committed(of, bounds)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for partition, at := range places {
		p.owned[partition] = at
		of[partition] = kgo.NewOffset().At(at)
	}
	p.metrics.partitions.Set(float64(len(p.owned)))
	return offsets, nil
}

// committed is where the group stands, within what the log still has.
func committed(of map[int32]kgo.Offset, b bounds) map[int32]int64 {
	places := make(map[int32]int64, len(of))
	for partition, o := range of {
		places[partition] = min(max(o.EpochOffset().Offset, b.start(partition)), b.end(partition))
	}
	return places
}

func (p *Projector[R]) lost(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, partition := range lost[p.of.Topic] {
		delete(p.owned, partition)
	}
	p.metrics.partitions.Set(float64(len(p.owned)))
}

// bounds are the ends of the log's partitions.
type bounds struct {
	topic        string
	starts, ends kadm.ListedOffsets
}

func listBounds(ctx context.Context, cl *kgo.Client, topic string) (bounds, error) {
	adm := kadm.NewClient(cl)
	starts, err := adm.ListStartOffsets(ctx, topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return bounds{}, err
	}
	ends, err := adm.ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	return bounds{topic, starts, ends}, err
}

func (b bounds) start(partition int32) int64 {
	o, _ := b.starts.Lookup(b.topic, partition)
	return o.Offset
}

func (b bounds) end(partition int32) int64 {
	o, _ := b.ends.Lookup(b.topic, partition)
	return o.Offset
}

// place finds where Redis stands in partitions. Where it knows nothing, or
// stands beyond the log's end (the log was made anew), it starts over.
func (p *Projector[R]) place(ctx context.Context, partitions []int32, b bounds) (map[int32]int64, error) {
	known, err := p.of.Store.Projections(ctx, partitions)
	if err != nil {
		return nil, err
	}
	places := make(map[int32]int64, len(partitions))
	for i, partition := range partitions {
		switch at := known[i]; {
		case !at.Known:
			places[partition], err = b.start(partition), p.rebuild(ctx, partition, b)
		case at.Next > b.end(partition):
			p.log.Warn("redis stands beyond the end of the log, starting over", "partition", partition, "offset", at.Next, "end", b.end(partition))
			places[partition] = b.start(partition)
			_, err = p.of.Store.Replace(ctx, partition, at.Next, b.start(partition), b.end(partition))
		default:
			places[partition] = at.Next
		}
		if err != nil {
			return nil, err
		}
	}
	return places, nil
}

func (p *Projector[R]) rebuild(ctx context.Context, partition int32, b bounds) error {
	if err := p.of.Store.Rebuild(ctx, partition, b.start(partition), b.end(partition)); err != nil {
		return err
	}
	p.metrics.rebuilds.Inc()
	p.log.Info("filling redis from the log", "partition", partition, "from", b.start(partition), "target", b.end(partition))
	return nil
}

// commitTimeout bounds the last commit.
const commitTimeout = 2 * time.Second

// Run projects until ctx is done, and then commits once more and leaves the
// group. An error means that it did not begin.
func (p *Projector[R]) Run(ctx context.Context, kafka kafkaclient.Config) error {
	cl, err := kafkaclient.New(kafka, p.log, p.opts()...)
	if err != nil {
		return err
	}
	defer cl.Close()
	p.client <- cl
	defer func() { <-p.client }()
	var committing sync.WaitGroup
	committing.Go(func() { p.commitLoop(ctx, cl) })
	next := time.Now().Add(p.p.Check)
	for ctx.Err() == nil {
		until, cancel := context.WithDeadline(ctx, next)
		fetches := cl.PollRecords(until, p.p.Poll)
		cancel()
		fetches.EachError(func(_ string, partition int32, err error) {
			if until.Err() == nil {
				p.log.Warn("fetch records", "partition", partition, "err", err)
			}
		})
		p.applyAll(ctx, cl, fetches)
		if now := time.Now(); !now.Before(next) {
			p.check(ctx, cl)
			next = now.Add(p.p.Check)
		}
	}
	committing.Wait()
	p.commit(context.WithoutCancel(ctx), cl)
	return nil
}

func (p *Projector[R]) applyAll(ctx context.Context, cl *kgo.Client, fetches kgo.Fetches) {
	fetches.EachTopic(func(t kgo.FetchTopic) { p.fetchedFrom(t.TopicID) })
	var g errgroup.Group
	g.SetLimit(p.p.Parallel)
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		if len(f.Records) > 0 {
			g.Go(func() error { p.apply(ctx, cl, f.Partition, f.Records, f.HighWatermark); return nil })
		}
	})
	_ = g.Wait() // apply handles its own errors
}

// check compares Redis with where we stand, so that a Redis that lost its data
// is noticed although no result comes in.
func (p *Projector[R]) check(ctx context.Context, cl *kgo.Client) {
	partitions := p.partitions()
	if len(partitions) == 0 {
		return
	}
	known, err := p.of.Store.Projections(ctx, partitions)
	if err != nil {
		p.log.Debug("check projection", "err", err)
		return
	}
	for i, partition := range partitions {
		position, owned := p.position(partition)
		if owned && (!known[i].Known || known[i].Next != position) {
			p.settle(ctx, cl, partition)
		}
	}
}

// settle goes to where Redis stands.
func (p *Projector[R]) settle(ctx context.Context, cl *kgo.Client, partition int32) {
	b, err := listBounds(ctx, cl, p.of.Topic)
	if err != nil {
		p.log.Warn("find ends of the log", "err", err)
		return
	}
	places, err := p.place(ctx, []int32{partition}, b)
	if err != nil {
		p.log.Warn("place projector", "partition", partition, "err", err)
		return
	}
	at := places[partition]
	if start := b.start(partition); at < start {
		p.skip(ctx, partition, at, start)
		at = start
	}
	p.move(partition, at)
	cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{p.of.Topic: {partition: {Epoch: -1, Offset: at}}})
}

// skip takes Redis over records that retention has deleted.
func (p *Projector[R]) skip(ctx context.Context, partition int32, from, to int64) {
	p.log.Error("records were deleted before they were read: raise the retention of the topic",
		"partition", partition, "offset", from, "records", to-from)
	if err := p.of.Store.Apply(ctx, partition, from, to, nil); err != nil {
		p.log.Warn("skip deleted records", "partition", partition, "err", err)
	}
}

// commitLoop commits beside the projection, which must not wait for it.
func (p *Projector[R]) commitLoop(ctx context.Context, cl *kgo.Client) {
	tick := time.NewTicker(p.p.Check)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.commit(ctx, cl)
		}
	}
}

// commit tells those who watch the lag; a failure is made good by the next.
func (p *Projector[R]) commit(ctx context.Context, cl *kgo.Client) {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	at, changed := p.positions()
	if !changed {
		return
	}
	req, err := kafkaclient.MemberCommit(cl, p.of.Group)
	if err == nil {
		req.Topics = []kmsg.OffsetCommitRequestTopic{at}
		err = kafkaclient.Commit(ctx, cl, req)
	}
	if err != nil {
		p.log.Debug("commit positions", "err", err)
	}
}

// positions are what a commit has to say, and whether it is new.
func (p *Projector[R]) positions() (at kmsg.OffsetCommitRequestTopic, changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed, p.changed = p.changed, false
	at.Topic, at.TopicID = p.of.Topic, p.topicID
	for partition, offset := range p.owned {
		one := kmsg.NewOffsetCommitRequestTopicPartition()
		one.Partition, one.Offset = partition, offset
		at.Partitions = append(at.Partitions, one)
	}
	return at, changed && len(at.Partitions) > 0
}

// fetchedFrom notes the id of the topic, by which commits name it.
func (p *Projector[R]) fetchedFrom(id [16]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.topicID = id
}

func (p *Projector[R]) partitions() []int32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.owned))
}

func (p *Projector[R]) position(partition int32) (at int64, owned bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, owned = p.owned[partition]
	return at, owned
}

// move notes how far an owned partition has come.
func (p *Projector[R]) move(partition int32, to int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, owned := p.owned[partition]; owned {
		p.owned[partition], p.changed = to, true
	}
}
