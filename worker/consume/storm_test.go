package consume_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/worker/consume"
)

// ledger is what all members together have finished. It reads every commit on
// its way to the broker.
type ledger struct {
	mu      sync.Mutex
	rng     *rand.Rand
	done    map[int32]map[int64]bool
	records int64 // of each partition
	runs    int
	faults  []string
	commits int
}

func (l *ledger) finish(d *consume.Delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.runs++
	l.done[d.Partition][d.Offset] = true
}

func (l *ledger) delay() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rng.IntN(50) == 0 {
		return time.Duration(l.rng.IntN(4000)) * time.Millisecond // a straggler
	}
	return time.Duration(l.rng.IntN(300)) * time.Millisecond
}

// pause is how long the storm lets a membership stand.
func (l *ledger) pause() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Duration(500+l.rng.IntN(2500)) * time.Millisecond
}

// complete tells whether every partition's records were all finished.
func (l *ledger) complete(records int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, done := range l.done {
		if len(done) < records {
			return false
		}
	}
	return true
}

// check notes every offset that a commit calls settled and nobody finished.
func (l *ledger) check(req *kmsg.OffsetCommitRequest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.commits++
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			track, err := consume.RestoreTracker(p.Offset, *p.Metadata)
			if err != nil {
				l.faults = append(l.faults, err.Error())
				continue
			}
			for o := range p.Offset {
				if !l.done[p.Partition][o] {
					l.faults = append(l.faults, "a watermark passed unfinished work")
				}
			}
			for o := p.Offset; o < l.records; o++ {
				if track.Deliver(o) == consume.Done && !l.done[p.Partition][o] {
					l.faults = append(l.faults, "a bitmap names unfinished work")
				}
			}
		}
	}
}

// slowly is a sink that settles each delivery after a while, whatever has
// become of its partition by then.
type slowly struct {
	l    *ledger
	work sync.WaitGroup
	stop chan struct{}
}

func (s *slowly) Deliver(ds []*consume.Delivery) {
	for _, d := range ds {
		wait := s.l.delay()
		s.work.Go(func() {
			select {
			case <-time.After(wait):
				s.l.finish(d)
				d.Settle()
			case <-s.stop: // killed in the middle of it
			}
		})
	}
}

func (s *slowly) Revoked() {}

func TestNoCommitEverPassesUnfinishedWorkInARebalanceStorm(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { storm(t, seed) })
		})
	}
}

func storm(t *testing.T, seed uint64) {
	const partitions, records = 6, 600
	var network kfake.VirtualNetwork
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, lane), kfake.ListenFn(network.Listen), kfake.Ports(9092))
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	cfg := kafkaclient.Config{Brokers: fake.ListenAddrs(), ClientID: "test", Dial: network.DialContext}
	l := &ledger{rng: rand.New(rand.NewPCG(seed, 1)), done: map[int32]map[int64]bool{}, records: records}
	for p := range int32(partitions) {
		l.done[p] = map[int64]bool{}
	}
	fake.ControlKey(int16(kmsg.OffsetCommit), func(req kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		l.check(req.(*kmsg.OffsetCommitRequest))
		return nil, nil, false
	})
	produceTo(t, cfg, partitions, records)

	join := func() (leave func()) {
		sink := &slowly{l: l, stop: make(chan struct{})}
		g, err := consume.Open(cfg, consume.Params{Group: group, Topics: []string{lane}, CommitInterval: 200 * time.Millisecond, MaxRecords: 200, PollRecords: 20},
			sink, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var loops sync.WaitGroup
		loops.Go(func() { _ = g.Poll(ctx) })
		loops.Go(func() { g.CommitLoop(ctx) })
		return func() {
			cancel()
			loops.Wait()
			closing, done := context.WithTimeout(context.Background(), 10*time.Second)
			defer done()
			if err := g.Close(closing); err != nil {
				t.Errorf("seed %d: close: %v", seed, err)
			}
			close(sink.stop)
			sink.work.Wait()
		}
	}
	stay := join()
	for range 5 { // a member comes and goes every few seconds
		leave := join()
		time.Sleep(l.pause())
		leave()
		time.Sleep(l.pause())
	}
	for deadline := time.Now().Add(time.Minute); !l.complete(records) && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
	}
	stay()

	l.mu.Lock()
	defer l.mu.Unlock()
	for p, done := range l.done {
		if len(done) != records {
			t.Errorf("seed %d: partition %d: %d of %d records were finished", seed, p, len(done), records)
		}
	}
	if len(l.faults) > 0 {
		t.Errorf("seed %d: %d faults in %d commits, the first: %s", seed, len(l.faults), l.commits, l.faults[0])
	}
	t.Logf("seed %d: %d commits, %d of %d records ran twice", seed, l.commits, l.runs-partitions*records, partitions*records)
	assertCommitted(t, cfg, partitions, records)
}

func produceTo(t *testing.T, cfg kafkaclient.Config, partitions int32, n int) {
	t.Helper()
	cl, err := kafkaclient.New(cfg, slog.New(slog.DiscardHandler), append(kafkaclient.ProducerOpts(64<<20), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for p := range partitions {
		for range n {
			cl.Produce(context.Background(), &kgo.Record{Topic: lane, Partition: p, Value: []byte("x")}, nil)
		}
	}
	if err := cl.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func assertCommitted(t *testing.T, cfg kafkaclient.Config, partitions int32, want int64) {
	t.Helper()
	cl, err := kafkaclient.New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	offsets, err := kadm.NewClient(cl).FetchOffsets(context.Background(), group)
	if err != nil {
		t.Fatal(err)
	}
	for p := range partitions {
		if o, _ := offsets.Lookup(lane, p); o.At != want || o.Metadata != "" {
			t.Errorf("partition %d: committed %d %q, want %d", p, o.At, o.Metadata, want)
		}
	}
}
