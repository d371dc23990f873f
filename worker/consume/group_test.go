package consume_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/worker/consume"
)

const (
	lane  = "penstock.tasks.default.standard"
	group = "penstock.worker.default"
)

// collector is a sink that remembers what it was given.
type collector struct {
	mu      sync.Mutex
	got     []*consume.Delivery
	changed chan struct{} // closed and replaced on every change
	revokes int
}

func newCollector() *collector { return &collector{changed: make(chan struct{})} }

func (c *collector) Deliver(ds []*consume.Delivery) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = append(c.got, ds...)
	c.notify()
}

func (c *collector) Revoked() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revokes++
	c.notify()
}

func (c *collector) notify() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// until waits until ok is true of what was delivered.
func (c *collector) until(t *testing.T, what string, ok func(got []*consume.Delivery) bool) []*consume.Delivery {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		c.mu.Lock()
		got, changed := slices.Clone(c.got), c.changed
		c.mu.Unlock()
		if ok(got) {
			return got
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("waited in vain for %s; have %d deliveries", what, len(got))
		}
	}
}

func atLeast(n int) func([]*consume.Delivery) bool {
	return func(got []*consume.Delivery) bool { return len(got) >= n }
}

type cluster struct {
	*kfake.Cluster
	cfg   kafkaclient.Config
	admin *kadm.Client
	cl    *kgo.Client
}

func startCluster(t *testing.T, partitions int32) *cluster {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, lane), kfake.GroupMinSessionTimeout(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	cfg := kafkaclient.Config{Brokers: fake.ListenAddrs(), ClientID: "test"}
	cl, err := kafkaclient.New(cfg, slog.New(slog.DiscardHandler), append(kafkaclient.ProducerOpts(64<<20), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return &cluster{fake, cfg, kadm.NewClient(cl), cl}
}

func (c *cluster) produce(t *testing.T, partition int32, n int) {
	t.Helper()
	recs := make([]*kgo.Record, n)
	for i := range recs {
		recs[i] = &kgo.Record{Topic: lane, Partition: partition, Value: fmt.Appendf(nil, "%d", i)}
	}
	if err := c.cl.ProduceSync(t.Context(), recs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) committed(t *testing.T, partition int32) kadm.OffsetResponse {
	t.Helper()
	offsets, err := c.admin.FetchOffsets(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	o, _ := offsets.Lookup(lane, partition)
	return o
}

type member struct {
	*consume.Group
	sink *collector
	stop func()
}

// join opens a member and runs its loops; stop ends them and closes it.
func (c *cluster) join(t *testing.T, p consume.Params) *member {
	t.Helper()
	p.Group, p.Topics = group, []string{lane}
	m := &member{sink: newCollector()}
	g, err := consume.Open(c.cfg, p, m.sink, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := g.Poll(ctx); err != nil {
			t.Errorf("poll: %v", err)
		}
	})
	wg.Go(func() { g.CommitLoop(ctx) })
	m.Group = g
	m.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		closing, done := context.WithTimeout(context.Background(), 5*time.Second)
		defer done()
		if err := g.Close(closing); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	t.Cleanup(m.stop)
	return m
}

func TestARestartReplaysOnlyUnfinishedOffsets(t *testing.T) {
	c := startCluster(t, 1)
	c.produce(t, 0, 1000)
	first := c.join(t, consume.Params{})
	unfinished := map[int64]bool{}
	for _, d := range first.sink.until(t, "all records", atLeast(1000)) {
		if d.Offset%7 == 3 {
			unfinished[d.Offset] = true
			continue
		}
		d.Settle()
	}
	first.stop()
	if at := c.committed(t, 0); at.At != 3 || at.Metadata == "" {
		t.Fatalf("committed offset %d with %d bytes of metadata; want 3 and a bitmap", at.At, len(at.Metadata))
	}

	second := c.join(t, consume.Params{})
	second.sink.until(t, "the unfinished records", atLeast(len(unfinished)))
	c.produce(t, 0, 1) // a barrier: once it is here, nothing else is coming before it
	got := second.sink.until(t, "the barrier", atLeast(len(unfinished)+1))
	for _, d := range got[:len(got)-1] {
		if !unfinished[d.Offset] {
			t.Errorf("offset %d was settled and is replayed", d.Offset)
		}
		delete(unfinished, d.Offset)
	}
	if len(unfinished) > 0 {
		t.Errorf("%d unfinished offsets were skipped", len(unfinished))
	}
	if first, second := got[0].Group, got[0].Group; second < first {
		t.Errorf("group generation fell from %d to %d", first, second)
	}
}

func TestCorruptMetadataIsIgnoredAndEverythingReplayed(t *testing.T) {
	c := startCluster(t, 1)
	c.produce(t, 0, 50)
	var offsets kadm.Offsets
	offsets.Add(kadm.Offset{Topic: lane, Partition: 0, At: 10, LeaderEpoch: -1, Metadata: "not ours"})
	if _, err := c.admin.CommitOffsets(t.Context(), group, offsets); err != nil {
		t.Fatal(err)
	}
	m := c.join(t, consume.Params{})
	got := m.sink.until(t, "the records from the offset on", atLeast(40))
	if len(got) != 40 || got[0].Offset != 10 {
		t.Errorf("got %d deliveries from offset %d; want 40 from 10", len(got), got[0].Offset)
	}
}

func TestARebalanceNeverCommitsForALostPartition(t *testing.T) {
	c := startCluster(t, 4)
	for p := range int32(4) {
		c.produce(t, p, 100)
	}
	first := c.join(t, consume.Params{CommitInterval: 10 * time.Millisecond})
	held := first.sink.until(t, "all records", atLeast(400))

	// Every commit that names a partition after somebody else got it is a fault.
	second := c.join(t, consume.Params{})
	moved := second.sink.until(t, "two of the partitions to move", atLeast(200))
	gone := map[int32]bool{}
	for _, d := range moved {
		gone[d.Partition] = true
	}
	for _, d := range held { // late: the second member runs these now
		if d.Revoked() != gone[d.Partition] {
			t.Fatalf("partition %d: Revoked() = %t", d.Partition, d.Revoked())
		}
		d.Settle()
	}
	first.stop()
	for p := range int32(4) {
		want := int64(100)
		if gone[p] {
			want = 0
		}
		if at := c.committed(t, p); max(at.At, 0) != want || at.Metadata != "" {
			t.Errorf("partition %d: committed %d %q, want %d", p, at.At, at.Metadata, want)
		}
	}
	for _, d := range moved {
		if d.Group <= held[0].Group {
			t.Fatalf("group generation of the new owner is %d, of the old %d", d.Group, held[0].Group)
		}
	}
}

func TestARevokeCommitsWhatWasSettledBefore(t *testing.T) {
	c := startCluster(t, 2)
	c.produce(t, 0, 100)
	c.produce(t, 1, 100)
	first := c.join(t, consume.Params{CommitInterval: time.Hour})
	for _, d := range first.sink.until(t, "all records", atLeast(200)) {
		if d.Offset != 50 {
			d.Settle()
		}
	}
	second := c.join(t, consume.Params{})
	got := second.sink.until(t, "the unfinished record of the moved partition", atLeast(1))
	c.produce(t, got[0].Partition, 1)
	got = second.sink.until(t, "the barrier", atLeast(2))
	if got[0].Offset != 50 || got[1].Offset != 100 {
		t.Errorf("the new owner got offsets %d and %d, want 50 and 100", got[0].Offset, got[1].Offset)
	}
}

func TestLimitsPauseAndResume(t *testing.T) {
	c := startCluster(t, 1)
	c.produce(t, 0, 5000)
	m := c.join(t, consume.Params{MaxRecords: 100, PollRecords: 10})
	seen := 0
	for seen < 5000 {
		got := m.sink.until(t, "more records", atLeast(seen+1))
		for _, d := range got[seen:] {
			if n := m.InFlight(); n > 110 {
				t.Fatalf("%d records in flight, limit 100 and one poll", n)
			}
			d.Settle()
		}
		seen = len(got)
	}
}

func TestAPendingHeadPausesThePartitionInsteadOfOverflowing(t *testing.T) {
	c := startCluster(t, 1)
	c.produce(t, 0, 40_000)
	var longest int
	long := make(chan struct{})
	once := sync.OnceFunc(func() { close(long) })
	c.ControlKey(int16(kmsg.OffsetCommit), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		for _, t := range req.(*kmsg.OffsetCommitRequest).Topics {
			for _, p := range t.Partitions {
				if longest = max(longest, len(*p.Metadata)); longest >= 1000 {
					once()
				}
			}
		}
		return nil, nil, false
	})
	m := c.join(t, consume.Params{MaxRecords: 1 << 20, CommitInterval: 10 * time.Millisecond})
	var odd []*consume.Delivery
	seen := 0
	for seen < 40_000 {
		// A partition that was paused flows again below half of its span: with a
		// quarter of it in flight, every other one, it may stand still.
		got := m.sink.until(t, "more records", func(got []*consume.Delivery) bool { return len(got) > seen || len(odd) > consume.Span/4 })
		for _, d := range got[seen:] {
			if d.Offset%2 == 0 {
				odd = append(odd, d)
				continue
			}
			d.Settle()
		}
		if seen == len(got) { // paused: let go of the heads, once they were in a commit
			select {
			case <-long:
			case <-time.After(20 * time.Second):
				t.Fatal("no commit says much")
			}
			for _, d := range odd {
				d.Settle()
			}
			odd = odd[:0]
		}
		seen = len(got)
	}
	m.stop()
	if longest > consume.MetadataLimit {
		t.Errorf("longest commit metadata has %d bytes, want at most %d", longest, consume.MetadataLimit)
	}
	second := c.join(t, consume.Params{})
	got := second.sink.until(t, "the unfinished records", atLeast(len(odd)))
	if len(got) != len(odd) {
		t.Errorf("%d records replayed, %d were unfinished", len(got), len(odd))
	}
}

func TestOnlyAHeadThatAloneFillsTheSpanBlocks(t *testing.T) {
	const nearlyFull = consume.Span * 9 / 10
	const few = (nearlyFull + 1) / 50 // 2 % of a span that is more than 90 % full
	c := startCluster(t, 1)
	m := c.join(t, consume.Params{MaxRecords: 1 << 20})
	expect := func(what string, want ...*consume.Delivery) {
		t.Helper()
		if got := m.Blocked(); !slices.Equal(got, want) {
			t.Errorf("%s: %d heads block, want %d", what, len(got), len(want))
		}
	}

	c.produce(t, 0, nearlyFull)
	got := m.sink.until(t, "90 % of the span", atLeast(nearlyFull))
	for _, d := range got[few:] {
		d.Settle()
	}
	expect("90 % of the span")
	c.produce(t, 0, 1)
	got = m.sink.until(t, "one record more", atLeast(nearlyFull+1))
	expect("one more, but more than 2 % are in flight")
	got[nearlyFull].Settle()
	expect("2 % are in flight", got[0])
	for _, d := range got[1:few] {
		d.Settle()
	}
	expect("the head alone is in flight", got[0])
	got[0].Settle()
	expect("nothing is in flight")
}
