package devstack_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/penstock/penstock/internal/devstack"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const retention = time.Hour

// open starts a broker and a client of it, with the plan's topics.
func open(t *testing.T, p devstack.BrokerParams, role ...kgo.Opt) (*devstack.Broker, *kgo.Client) {
	t.Helper()
	if role == nil {
		role = append(kafkaclient.ProducerOpts(1<<20), kafkaclient.GroupOpts("readers", topic.Results)...)
	}
	b, err := devstack.OpenBroker(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	cl, err := kafkaclient.New(
		kafkaclient.Config{Brokers: b.Addrs(), ClientID: "test", Dial: b.Dial()},
		slog.New(slog.DiscardHandler),
		role...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	plan, err := topic.Plan(topic.Params{Replication: 1, Partitions: 2, Retention: retention})
	if err != nil {
		t.Fatal(err)
	}
	if err := kafkaclient.EnsureTopics(t.Context(), cl, plan, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	return b, cl
}

func produce(t *testing.T, cl *kgo.Client, value string) {
	t.Helper()
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic.Results, Value: []byte(value)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// consume returns the value of the next record.
func consume(t *testing.T, cl *kgo.Client) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		for iter := fetches.RecordIter(); !iter.Done(); {
			return string(iter.Next().Value)
		}
	}
}

func TestBroker(t *testing.T) {
	t.Run("keeps the log of a data directory across a restart", func(t *testing.T) {
		dir := t.TempDir()
		t.Run("first", func(t *testing.T) {
			_, cl := open(t, devstack.BrokerParams{DataDir: dir})
			produce(t, cl, "kept")
		})
		_, cl := open(t, devstack.BrokerParams{DataDir: dir})
		if got := consume(t, cl); got != "kept" {
			t.Errorf("read %q after the restart, want %q", got, "kept")
		}
	})
	t.Run("refuses a data directory that another one holds", func(t *testing.T) {
		dir := t.TempDir()
		open(t, devstack.BrokerParams{DataDir: dir})
		if _, err := devstack.OpenBroker(devstack.BrokerParams{DataDir: dir}); !errors.Is(err, devstack.ErrInUse) {
			t.Errorf("second open: %v, want ErrInUse", err)
		}
	})
	t.Run("frees what is past its retention within seconds", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, cl := open(t, devstack.BrokerParams{Net: &kfake.VirtualNetwork{}}, kafkaclient.ProducerOpts(1<<20)...)
			produce(t, cl, "old")
			time.Sleep(retention + 10*time.Second)
			starts, err := kadm.NewClient(cl).ListStartOffsets(t.Context(), topic.Results)
			if err != nil {
				t.Fatal(err)
			}
			var freed int64
			starts.Each(func(o kadm.ListedOffset) { freed += o.Offset })
			if freed != 1 {
				t.Errorf("%d records freed, want 1", freed)
			}
		})
	})
}

func openStore(t *testing.T, p devstack.StoreParams) (*devstack.Store, *redis.Client) {
	t.Helper()
	s, err := devstack.OpenStore(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	cl := redis.NewClient(&redis.Options{Addr: s.Addr(), Dialer: s.Dial, DisableIdentity: true})
	t.Cleanup(func() { _ = cl.Close() })
	return s, cl
}

func TestStore(t *testing.T) {
	t.Run("lets keys expire without a socket and in the bubble's time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, cl := openStore(t, devstack.StoreParams{Virtual: true})
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); s.Run(ctx) }()
			if err := cl.Set(ctx, "k", "v", time.Hour).Err(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(59 * time.Minute)
			if err := cl.Get(ctx, "k").Err(); err != nil {
				t.Errorf("a minute before its time: %v", err)
			}
			time.Sleep(2 * time.Minute)
			if err := cl.Get(ctx, "k").Err(); !errors.Is(err, redis.Nil) {
				t.Errorf("a minute after its time: %v, want redis.Nil", err)
			}
			stop()
			<-done
		})
	})
	t.Run("takes a pipeline whose answers are larger than any buffer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, cl := openStore(t, devstack.StoreParams{Virtual: true})
			if err := cl.Set(t.Context(), "k", string(make([]byte, 64<<10)), 0).Err(); err != nil {
				t.Fatal(err)
			}
			cmds, err := cl.Pipelined(t.Context(), func(p redis.Pipeliner) error {
				for range 200 {
					p.Get(t.Context(), "k")
				}
				return nil
			})
			if err != nil || len(cmds) != 200 {
				t.Errorf("%d answers, %v", len(cmds), err)
			}
		})
	})
	t.Run("lets the oldest results expire and keeps their tasks' state", func(t *testing.T) {
		s, cl := openStore(t, devstack.StoreParams{Retain: 1})
		for i := range int32(3) {
			id := task.ID(fmt.Sprint("task_", i))
			for _, key := range []string{rediskey.Task(i, id), rediskey.Result(i, id), rediskey.Events(i, id), rediskey.Snapshot(i, id)} {
				if err := cl.Set(t.Context(), key, "x", 0).Err(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if n := s.Evict(); n != 2 {
			t.Errorf("%d results expired, want 2", n)
		}
		want := []string{
			rediskey.Task(0, "task_0"), rediskey.Task(1, "task_1"), rediskey.Events(2, "task_2"),
			rediskey.Result(2, "task_2"), rediskey.Snapshot(2, "task_2"), rediskey.Task(2, "task_2"),
		}
		if diff := cmp.Diff(want, s.Redis().Keys()); diff != "" {
			t.Error("keys left (-want +got):\n" + diff)
		}
	})
}
