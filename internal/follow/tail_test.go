package follow_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/event"
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
	b.needsFake()
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

func TestTerminalsComeWithoutRedis(t *testing.T) {
	b := setupTail(t)
	b.redis.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	id := b.young()
	c, err := b.follower.Follow(ctx, id, event.ID{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b.publish(t, b.ended(id, task.Succeeded, 0))
	b.publish(t, b.ended(id, task.Failed, 0))
	var got []string
	for {
		e, err := c.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, line(e))
	}
	if d := cmp.Diff([]string{"0-1 queued ", event.TerminalID(0).String() + " succeeded "}, got); d != "" {
		t.Error(d)
	}
}

func TestATerminalOfAnOlderTaskNeedsRedis(t *testing.T) {
	b := setupTail(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	old := b.minter.New("acme", time.Now().Add(-time.Hour))
	short, done := context.WithTimeout(ctx, 700*time.Millisecond)
	defer done()
	var wg sync.WaitGroup
	var err error
	wg.Go(func() { _, _, err = b.follower.Wait(short, old) })
	b.publish(t, b.ended(old, task.Succeeded, 0))
	wg.Wait()
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a terminal nobody confirmed was delivered: %v", err)
	}
}

func TestALateTerminalIsNotDelivered(t *testing.T) {
	b := setupTail(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	id := b.young()
	b.publish(t, b.ended(id, task.Cancelled, 0)) // wins while nobody watches
	b.await(t)                                   // the tail has passed it
	b.redis.Close()
	short, done := context.WithTimeout(ctx, 500*time.Millisecond)
	defer done()
	var wg sync.WaitGroup
	var err error
	wg.Go(func() { _, _, err = b.follower.Wait(short, id) })
	b.publish(t, b.ended(id, task.Succeeded, 0))
	wg.Wait()
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the loser was delivered: %v", err)
	}
}

func TestAWatcherThatComesAfterTheTailGetsTheTerminalToo(t *testing.T) {
	b := setupTail(t)
	b.redis.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	id := b.young()
	first, err := b.follower.Follow(ctx, id, event.QueuedID())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := b.follower.Follow(ctx, id, event.QueuedID())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	b.publish(t, b.ended(id, task.Succeeded, 0))
	if e, err := first.Next(ctx); err != nil || e.Type != event.Succeeded {
		t.Fatalf("%+v, %v", e, err)
	}
	if got, _, err := b.follower.Wait(ctx, id); err != nil || got.Status != task.Succeeded {
		t.Errorf("%+v, %v", got, err)
	}
}
