//go:build !integration

package follow_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
)

type tailBundle struct {
	*bundle
	pub *tasktopic.Publisher
}

// setupTail runs a follower that tails an empty results topic.
func setupTail(t *testing.T) tailBundle {
	t.Helper()
	b := setup(t, follow.Params{TailGrace: 20 * time.Millisecond, Confirm: 100 * time.Millisecond, Skew: time.Nanosecond})
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, topic.Results))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	open := func(role ...kgo.Opt) *kgo.Client {
		cl, err := kafkaclient.New(kafkaclient.Config{Brokers: cluster.ListenAddrs()}, slog.New(slog.DiscardHandler), role...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cl.Close)
		return cl
	}
	tb := tailBundle{b, tasktopic.NewPublisher(open(kafkaclient.ProducerOpts(1<<20)...), tasktopic.Params{ResultsPartitions: partitions})}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	reader := open()
	wg.Go(func() {
		if err := b.follower.RunTail(ctx, reader); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { stop(); wg.Wait() })
	tb.await(t)
	return tb
}

// await waits until the tail delivers: a watched task's terminal comes through
// although the store never hears of it.
func (b tailBundle) await(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		id := b.young()
		short, done := context.WithTimeout(ctx, 300*time.Millisecond)
		var wg sync.WaitGroup
		var err error
		wg.Go(func() { _, _, err = b.follower.Wait(short, id) })
		b.publish(t, b.ended(id, task.Succeeded, 0))
		wg.Wait()
		done()
		if err == nil {
			return
		}
	}
	t.Fatal("the tail delivers nothing")
}

// young is an id that is younger than the tail.
func (b tailBundle) young() task.ID { return b.minter.New("acme", time.Now().Add(time.Minute)) }

func (b tailBundle) publish(t *testing.T, r *terminal.Terminal) {
	t.Helper()
	if _, err := b.pub.Terminal(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}
