package tasktopic_test

import (
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/tasktopic"
)

// onMachine returns a publisher on a machine whose clock is ahead of the
// brokers'. Setting that clock changes what the pointer points at.
func (b bundle) onMachine(t *testing.T, ahead *time.Duration) *tasktopic.Publisher {
	t.Helper()
	cl, err := kafkaclient.New(kafkaclient.Config{Brokers: b.cluster.ListenAddrs(), ClientID: "test"}, slog.New(slog.DiscardHandler),
		kafkaclient.ProducerOpts(1<<20)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return tasktopic.NewPublisher(cl, tasktopic.Params{ResultsPartitions: 12, Wait: 2 * time.Second, NowFunc: func() time.Time {
		return time.Now().Add(*ahead)
	}})
}

// off is how far the publisher's clock is from the brokers', who run on ours.
func off(p *tasktopic.Publisher) time.Duration { return time.Until(p.BrokerNow()).Abs() }

const near = 500 * time.Millisecond

func TestAWrongMachineLearnsTheBrokersTime(t *testing.T) {
	b := setup(t, 1<<20)
	for name, ahead := range map[string]time.Duration{"ten minutes fast": 10 * time.Minute, "ten minutes slow": -10 * time.Minute, "right": 0} {
		t.Run(name, func(t *testing.T) {
			p := b.onMachine(t, &ahead)
			if got := off(p); got < ahead.Abs()-near {
				t.Fatalf("off by %s before it asked: the machine's clock is not the injected one", got)
			}
			if err := p.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := off(p); got > near {
				t.Errorf("off by %s", got)
			}
		})
	}
}

func TestTheLastEstimateStandsWhileTheBrokersDoNotAnswer(t *testing.T) {
	b := setup(t, 1<<20)
	ahead := 10 * time.Minute
	p := b.onMachine(t, &ahead)
	if err := p.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.UnknownServerError, Count: -1})
	if err := p.Sync(t.Context()); err == nil {
		t.Error("no answer, and no error")
	}
	if got := off(p); got > near {
		t.Errorf("off by %s", got)
	}
}

func TestAnOlderStampIsNotTakenForThePresent(t *testing.T) {
	b := setup(t, 1<<20)
	p := b.onMachine(t, new(time.Duration))
	if err := p.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	// As a leader answers whose clock is an hour behind its predecessor's: the
	// youngest stamp is one from before our record.
	b.cluster.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		asked := req.(*kmsg.ListOffsetsRequest).Topics[0]
		r := req.ResponseKind().(*kmsg.ListOffsetsResponse)
		r.Topics = []kmsg.ListOffsetsResponseTopic{{Topic: asked.Topic, Partitions: []kmsg.ListOffsetsResponseTopicPartition{{
			Offset: 0, LeaderEpoch: -1, Timestamp: time.Now().Add(time.Hour).UnixMilli(),
		}}}}
		return r, nil, true
	})
	if err := p.Sync(t.Context()); err == nil {
		t.Error("an older record's stamp was taken")
	}
	if got := off(p); got > near {
		t.Errorf("off by %s", got)
	}
}

func TestServicesThatStartInOneMillisecondAllLearnTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var network kfake.VirtualNetwork
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.ListenFn(network.Listen), kfake.Ports(9092))
		if err != nil {
			t.Fatal(err)
		}
		defer cluster.Close()
		cfg := kafkaclient.Config{Brokers: cluster.ListenAddrs(), ClientID: "test", Dial: network.DialContext}
		quiet := slog.New(slog.DiscardHandler)
		var starts sync.WaitGroup
		for range 8 {
			cl, err := kafkaclient.New(cfg, quiet, kafkaclient.ProducerOpts(1<<20)...)
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			starts.Go(func() {
				if err := tasktopic.DefaultConfig().Ensure(t.Context(), cl, []string{"default"}, quiet); err != nil {
					t.Error(err)
				}
				if err := tasktopic.NewPublisher(cl, tasktopic.Params{ResultsPartitions: 12}).Sync(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		starts.Wait()
	})
}
