package mover_test

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
	"github.com/penstock/penstock/worker/mover"
)

type bundle struct {
	t       *testing.T
	cluster *kfake.Cluster
	kafka   kafkaclient.Config
	writer  *kgo.Client
	pub     *tasktopic.Publisher
	reader  *kgo.Client
	minter  *task.Minter
	ahead   time.Duration // of the brokers' clock to this machine's
}

var lane = topic.Tasks("default", task.Standard)

// inBubble starts a cluster with the plan's topics on a virtual network, in fake
// time, and a mover on it.
func inBubble(t *testing.T, f func(b *bundle, start func() (stop func()))) {
	synctest.Test(t, func(t *testing.T) {
		network := &kfake.VirtualNetwork{}
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(network.Listen), kfake.SleepOutOfOrder())
		if err != nil {
			t.Fatal(err)
		}
		defer cluster.Close()
		b := &bundle{t: t, cluster: cluster}
		b.kafka = kafkaclient.Config{
			Brokers: cluster.ListenAddrs(), ClientID: "test",
			Dial: func(ctx context.Context, n, host string) (net.Conn, error) { return network.DialContext(ctx, n, host) },
		}
		plan, err := topic.Plan(topic.Params{Replication: 1, Partitions: 2})
		if err != nil {
			t.Fatal(err)
		}
		for _, tp := range plan {
			if err := cluster.CreateTopic(tp.Name, tp.Partitions, nil); err != nil {
				t.Fatal(err)
			}
		}
		quiet := slog.New(slog.DiscardHandler)
		cl, err := kafkaclient.New(b.kafka, quiet, append(kafkaclient.ProducerOpts(1<<20), kgo.ProducerBatchCompression(kgo.NoCompression()))...)
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		if b.writer, err = kafkaclient.New(b.kafka, quiet); err != nil { // may stamp any time
			t.Fatal(err)
		}
		defer b.writer.Close()
		b.pub = tasktopic.NewPublisher(cl, tasktopic.Params{ResultsPartitions: 2})
		b.reader, err = kafkaclient.New(b.kafka, quiet, kafkaclient.ReaderOpts(kgo.NewOffset().AtStart(), lane, topic.DeadLetters, topic.Results, topic.Tiers()[0].Topic())...)
		if err != nil {
			t.Fatal(err)
		}
		defer b.reader.Close()
		if b.minter, err = task.NewMinter(task.Secret{Key: make([]byte, 16)}); err != nil {
			t.Fatal(err)
		}
		f(b, func() func() {
			m, err := mover.Open(mover.Params{Kafka: b.kafka, Publisher: b.pub, Log: quiet, Metrics: prometheus.NewRegistry()})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error)
			go func() { done <- m.Run(ctx) }()
			return func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
		})
	})
}

func (b *bundle) park(tier topic.Tier, change func(*task.Progress)) *task.Task {
	b.t.Helper()
	t := &task.Task{
		SchemaVersion: 1, ID: b.minter.New("acme", time.Now()), Kind: task.Chat, Source: task.SourceAPI, Tenant: "acme", Model: "m",
		Class: task.Standard, Payload: task.Payload{Text: "hi"}, Timestamp: time.Now(), Deadline: time.Now().Add(24 * time.Hour),
	}
	p := task.Progress{Hop: 1, Attempts: 4, ReturnTopic: lane}
	if change != nil {
		change(&p)
	}
	rec, err := wire.EncodeTask(t, task.Progress{}, "")
	if err != nil {
		b.t.Fatal(err)
	}
	if rec, err = wire.Republish(rec, t, p, ""); err != nil {
		b.t.Fatal(err)
	}
	out := &kgo.Record{Topic: tier.Topic(), Key: rec.Key, Value: rec.Value, Timestamp: time.Now().Add(b.ahead)}
	for _, h := range rec.Headers {
		out.Headers = append(out.Headers, kgo.RecordHeader(h))
	}
	if err := b.writer.ProduceSync(context.Background(), out).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
	return t
}

type seen struct {
	topic string
	rec   wire.Record
	after time.Duration
}

// next reads the next record on a topic of interest and says when it came.
func (b *bundle) next(start time.Time, topics ...string) seen {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Hour)
	defer cancel()
	for {
		fetches := b.reader.PollRecords(ctx, 1)
		if ctx.Err() != nil {
			b.t.Fatal("nothing came")
		}
		for _, r := range fetches.Records() {
			if slices.Contains(topics, r.Topic) {
				return seen{r.Topic, tasktopic.FromKgo(r), time.Since(start)}
			}
		}
	}
}

func TestARecordWaitsForItsTierAndGoesBackToItsLane(t *testing.T) {
	for _, tier := range topic.Tiers() {
		t.Run(tier.Name, func(t *testing.T) {
			inBubble(t, func(b *bundle, start func() func()) {
				stop := start()
				began := time.Now()
				notBefore := began.Add(tier.Delay + time.Second).UTC()
				parked := b.park(tier, func(p *task.Progress) { p.NotBefore = notBefore })
				got := b.next(began, lane)
				if got.after < tier.Delay || got.after > tier.Delay+2*time.Second {
					t.Errorf("returned after %s, want %s", got.after, tier.Delay)
				}
				back, p, err := wire.DecodeTask(got.rec)
				if err != nil || back.ID != parked.ID || p.Hop != 2 || p.Attempts != 4 || p.ReturnTopic != "" || !p.NotBefore.Equal(notBefore) {
					t.Errorf("err %v, progress %+v", err, p)
				}
				stop()
			})
		})
	}
}

// brokersAhead makes the brokers' clock differ from this machine's: what they
// say of the time, and what they stamped on the records that park writes.
func (b *bundle) brokersAhead(ahead time.Duration) {
	b.ahead = ahead
	b.cluster.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		asked := req.(*kmsg.ListOffsetsRequest).Topics[0]
		if asked.Topic != topic.Clock {
			return nil, nil, false
		}
		r := req.ResponseKind().(*kmsg.ListOffsetsResponse)
		r.Topics = []kmsg.ListOffsetsResponseTopic{{Topic: asked.Topic, Partitions: []kmsg.ListOffsetsResponseTopicPartition{{
			LeaderEpoch: -1, Offset: 1 << 40, Timestamp: time.Now().Add(ahead).UnixMilli(),
		}}}}
		return r, nil, true
	})
}

func TestAWrongMachineKeepsTheTiersWait(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"ten minutes slow": 10 * time.Minute, "ten minutes fast": -10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bundle, start func() func()) {
				b.brokersAhead(ahead)
				if err := b.pub.Sync(context.Background()); err != nil {
					t.Fatal(err)
				}
				stop := start()
				defer func() { stop() }()
				for _, tier := range topic.Tiers() {
					began := time.Now()
					b.park(tier, nil)
					if got := b.next(began, lane); (got.after - tier.Delay).Abs() > time.Second {
						t.Errorf("tier %s: returned after %s", tier.Name, got.after)
					}
				}
			})
		})
	}
}

func TestARestartMovesNothingTwiceAndLosesNothing(t *testing.T) {
	inBubble(t, func(b *bundle, start func() func()) {
		stop := start()
		began := time.Now()
		for i := range 300 { // more than one partition may hold in memory
			b.park(topic.Tiers()[0], nil)
			if i%100 == 99 {
				time.Sleep(2 * time.Second)
			}
		}
		count := map[string]int{}
		take := func() { count[string(b.next(began, lane).rec.Key)]++ }
		take()
		stop()
		stop = start()
		defer func() { stop() }()
		for range 299 {
			take()
		}
		if len(count) != 300 {
			t.Errorf("%d different records came back, want 300 and each once", len(count))
		}
	})
}

func TestALongTierDoesNotHoldUpAShortOne(t *testing.T) {
	inBubble(t, func(b *bundle, start func() func()) {
		stop := start()
		defer func() { stop() }()
		tiers := topic.Tiers()
		for range 500 {
			b.park(tiers[3], nil)
		}
		began := time.Now()
		b.park(tiers[0], nil)
		if got := b.next(began, lane); got.after > 8*time.Second {
			t.Errorf("the 5 s tier took %s", got.after)
		}
	})
}

func TestAnUndeliverableRecordIsReappendedAndTheOthersGoOn(t *testing.T) {
	inBubble(t, func(b *bundle, start func() func()) {
		stop := start()
		defer func() { stop() }()
		tier := topic.Tiers()[0]
		began := time.Now()
		b.park(tier, func(p *task.Progress) { p.ReturnTopic = topic.Tasks("removed", task.Bulk) })
		b.park(tier, nil)
		b.next(began, tier.Topic())
		b.next(began, tier.Topic()) // the two, as parked
		if got := b.next(began, lane); got.after > 10*time.Second {
			t.Errorf("the healthy record took %s", got.after)
		}
		got := b.next(began, tier.Topic())
		_, p, err := wire.DecodeTask(got.rec)
		if err != nil || p.Hop != 2 || p.ReturnTopic != topic.Tasks("removed", task.Bulk) {
			t.Errorf("err %v, reappended with %+v", err, p)
		}
	})
}

func TestARecordThatSaysNoLaneIsBuried(t *testing.T) {
	inBubble(t, func(b *bundle, start func() func()) {
		stop := start()
		defer func() { stop() }()
		began := time.Now()
		parked := b.park(topic.Tiers()[0], func(p *task.Progress) { p.ReturnTopic = topic.Results })
		letter, err := wire.DecodeDeadLetter(b.next(began, topic.DeadLetters).rec)
		if err != nil || letter.TaskID != parked.ID {
			t.Errorf("err %v, letter %+v", err, letter)
		}
		end, err := wire.DecodeTerminal(b.next(began, topic.Results).rec)
		if err != nil || end.TaskID != parked.ID || end.Status != task.Dead {
			t.Errorf("err %v, terminal %+v", err, end)
		}
	})
}
