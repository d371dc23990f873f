package consume

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/internal/kafkaclient"
)

// settling hands on the first delivery that it is given.
type settling struct{ first chan *Delivery } // 1 slot

func (s settling) Deliver(ds []*Delivery) {
	select {
	case s.first <- ds[0]:
	default:
	}
}

func (settling) Revoked() {}

// A partition may be taken away between the moment a commit is put together
// and the moment it is sent: somebody else may have committed it since.
func TestAPartitionThatLeavesOnTheWayToTheBrokerIsLeftOut(t *testing.T) {
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "lane"))
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	cfg := kafkaclient.Config{Brokers: fake.ListenAddrs(), ClientID: "test"}
	cl, err := kafkaclient.New(cfg, slog.New(slog.DiscardHandler), kafkaclient.ProducerOpts(1<<20)...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "lane", Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	sink := settling{make(chan *Delivery, 1)}
	g, err := Open(cfg, Params{Group: "workers", Topics: []string{"lane"}}, sink, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var polling sync.WaitGroup
	polling.Go(func() { _ = g.Poll(ctx) })
	(<-sink.first).Settle()

	snaps, _ := g.snapshots()
	if _, err := g.request(snaps); err != nil || len(snaps) != 1 {
		t.Errorf("%d snapshots of a partition that is ours, and %v", len(snaps), err)
	}
	g.giveUp(map[string][]int32{"lane": {0}})
	if req, err := g.request(snaps); !errors.Is(err, errNothing) {
		t.Errorf("a commit for what was taken away: %+v, %v", req, err)
	}
	cancel()
	polling.Wait()
	_ = g.Close(context.Background()) // nothing is left to commit
}
