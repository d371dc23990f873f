package sweep_test

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/producer/sweep"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	partitions = 12 // as the plan has by default, and as a shared broker has
	pool       = "default"
	grace      = 2 * time.Second
)

type bundle struct {
	t      *testing.T
	kafka  kafkaclient.Config
	rdb    *redis.Client
	store  *taskstore.Store
	pub    *tasktopic.Publisher
	writer *kgo.Client
	minter *task.Minter
}

func setup(t *testing.T, ahead time.Duration) *bundle {
	t.Helper()
	b := &bundle{t: t, kafka: kafkaclient.DefaultConfig()}
	opt := b.open()
	b.rdb = redis.NewClient(opt)
	t.Cleanup(func() { _ = b.rdb.Close() })
	if err := b.rdb.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	b.store = taskstore.New(b.rdb, taskstore.Params{Partitions: partitions})
	b.writer = b.client(kafkaclient.ProducerOpts(1 << 20)...)
	b.pub = tasktopic.NewPublisher(b.writer, tasktopic.Params{ResultsPartitions: partitions, NowFunc: func() time.Time { return time.Now().Add(ahead) }})
	b.topics()
	if err := b.pub.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.minter, err = task.NewMinter(task.Secret{Key: make([]byte, 16)}); err != nil {
		t.Fatal(err)
	}
	return b
}

// open finds Kafka and Redis.
func (b *bundle) open() *redis.Options {
	b.t.Helper()
	if onServers {
		kafka, url := os.Getenv("PENSTOCK_TEST_KAFKA"), os.Getenv("PENSTOCK_TEST_REDIS")
		opt, err := redis.ParseURL(url)
		if kafka == "" || err != nil {
			b.t.Skip("PENSTOCK_TEST_KAFKA and PENSTOCK_TEST_REDIS are not set")
		}
		b.kafka.Brokers, opt.DB = []string{kafka}, 7 // packages are tested side by side
		return opt
	}
	b.t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(cluster.Close)
	b.kafka.Brokers = cluster.ListenAddrs()
	return &redis.Options{Addr: ticking(b.t).Addr()}
}

// ticking is a Redis whose keys expire: by itself this one's clock stands still.
func ticking(t *testing.T) *miniredis.Miniredis {
	t.Helper()
	mr := miniredis.RunT(t)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		const every = 50 * time.Millisecond
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				mr.FastForward(every)
			}
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return mr
}

// topics makes the plan's topics and, on a broker that others used before us,
// empties them.
func (b *bundle) topics() {
	b.t.Helper()
	plan, err := topic.Plan(topic.Params{Pools: []string{pool}, Partitions: partitions, Replication: 1})
	if err != nil {
		b.t.Fatal(err)
	}
	if err := kafkaclient.EnsureTopics(b.t.Context(), b.writer, plan, slog.New(slog.DiscardHandler)); err != nil {
		b.t.Fatal(err)
	}
	if !onServers {
		return
	}
	names := []string{topic.Results}
	for _, t := range topic.Consumed([]string{pool}) {
		names = append(names, t...)
	}
	adm := kadm.NewClient(b.writer)
	ends, err := adm.ListEndOffsets(b.t.Context(), names...)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := adm.DeleteRecords(b.t.Context(), ends.Offsets()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bundle) client(role ...kgo.Opt) *kgo.Client {
	b.t.Helper()
	cl, err := kafkaclient.New(b.kafka, slog.New(slog.DiscardHandler), role...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(cl.Close)
	return cl
}

// run runs sweepers, as many as there are processes, until the test ends.
func (b *bundle) run(processes int) {
	for range processes {
		s := sweep.New(b.store, b.pub, b.client(kafkaclient.ScanOpts()...), sweep.Params{
			Pools: []string{pool}, Grace: grace, Every: 100 * time.Millisecond, ScanEvery: 200 * time.Millisecond,
		}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { s.Run(ctx) })
		b.t.Cleanup(func() { cancel(); wg.Wait() })
	}
}

func (b *bundle) task(class task.Class, left time.Duration) *task.Task {
	now := time.Now().UTC()
	return &task.Task{
		SchemaVersion: 1, ID: b.minter.New("acme", now), Kind: task.Chat, Source: task.SourceAPI, Tenant: "acme", Model: "m",
		Class: class, Payload: task.Payload{Text: "hi"}, Timestamp: now, Deadline: now.Add(left), Labels: map[string]string{"n": "1"},
	}
}

// submit writes tasks that end so soon, as the ingress does, and returns them.
func (b *bundle) submit(n int, left time.Duration, hint bool) []*task.Task {
	b.t.Helper()
	out := make([]*task.Task, n)
	for i := range out {
		t := b.task(task.Classes()[i%3], left)
		out[i] = t
		if _, err := b.pub.Task(b.t.Context(), t, pool, task.Progress{}); err != nil {
			b.t.Fatal(err)
		}
		if hint {
			b.hint(t)
		}
	}
	return out
}

func (b *bundle) hint(t *task.Task) {
	b.t.Helper()
	h := taskstore.Hint{ID: t.ID, Tenant: t.Tenant, Status: task.Queued, Deadline: t.Deadline}
	if err := b.store.Hint(b.t.Context(), []taskstore.Hint{h}); err != nil {
		b.t.Fatal(err)
	}
}

// ends reads penstock.results until each task has a terminal, and then until
// nothing comes for a while.
func (b *bundle) ends(tasks []*task.Task, quiet time.Duration) map[task.ID][]*terminal.Terminal {
	b.t.Helper()
	reader := b.client(kafkaclient.ReaderOpts(kgo.NewOffset().AtStart(), topic.Results)...)
	got := map[task.ID][]*terminal.Terminal{}
	missing := func() bool {
		return slices.ContainsFunc(tasks, func(t *task.Task) bool { return len(got[t.ID]) == 0 })
	}
	for {
		wait := quiet
		if missing() {
			wait = 20 * time.Second
		}
		ctx, cancel := context.WithTimeout(b.t.Context(), wait)
		fetches := reader.PollFetches(ctx)
		cancel()
		if len(fetches.Records()) == 0 {
			if missing() {
				b.t.Fatalf("%d of %d tasks ended", len(got), len(tasks))
			}
			return got
		}
		for _, r := range fetches.Records() {
			t, err := wire.DecodeTerminal(tasktopic.FromKgo(r))
			if err != nil {
				b.t.Fatal(err)
			}
			got[t.TaskID] = append(got[t.TaskID], t)
		}
	}
}

// expired checks that each task ended once, as expired, in its time.
func (b *bundle) expired(tasks []*task.Task) {
	b.t.Helper()
	got := b.ends(tasks, time.Second)
	if len(got) != len(tasks) {
		b.t.Errorf("%d tasks ended, want %d", len(got), len(tasks))
	}
	for _, t := range tasks {
		end := got[t.ID][0]
		if len(got[t.ID]) != 1 || end.Status != task.Expired || end.Tenant != "acme" || end.Generation == nil || *end.Generation != 0 {
			b.t.Errorf("task ended %d times, first %+v", len(got[t.ID]), end)
		}
		if after := end.EndedAt.Sub(t.Deadline); after < grace {
			b.t.Errorf("ended %s after the deadline", after)
		}
	}
}

func TestTasksWithoutAWorkerExpire(t *testing.T) {
	b := setup(t, 0)
	b.run(2)
	healthy := b.submit(10, time.Hour, true)
	tasks := b.submit(60, 5*time.Second, true)
	if err := b.rdb.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	b.expired(tasks)
	found, err := b.store.Get(t.Context(), healthy[0].ID)
	if err != nil || found.View.Status != task.Queued || found.View.Labels["n"] != "1" {
		t.Errorf("a task that Redis forgot is shown as %+v, %v; want queued with its labels", found.View, err)
	}
}

func TestTasksThatWereNeverHintedExpire(t *testing.T) {
	b := setup(t, 0)
	b.run(1)
	tasks := b.submit(20, time.Second, false)
	parked := b.task(task.Bulk, time.Second) // and one that waits in a tier
	rec, err := wire.EncodeTask(parked, task.Progress{}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.pub.Republish(t.Context(), rec, parked, topic.Tiers()[3].Topic(), task.Progress{Hop: 1}); err != nil {
		t.Fatal(err)
	}
	b.expired(append(tasks, parked))
}

func TestOneLostPartitionIsIndexedAgain(t *testing.T) {
	b := setup(t, 0)
	b.run(1)
	tasks := b.submit(30, 4*time.Second, true)
	for p := range int32(partitions) { // what lies on one node of a cluster
		if err := b.rdb.Del(t.Context(), rediskey.Due(p), rediskey.Indexed(p)).Err(); err != nil {
			t.Fatal(err)
		}
	}
	b.expired(tasks)
}

func TestAWrongMachineExpiresByTheBrokersClock(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"ten minutes fast": 10 * time.Minute, "ten minutes slow": -10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			b := setup(t, ahead)
			b.run(1)
			b.expired(b.submit(5, 2*time.Second, true))
		})
	}
}

func TestATaskThatEndedIsLeftAlone(t *testing.T) {
	b := setup(t, 0)
	for p := range int32(partitions) {
		if err := b.store.Rebuild(t.Context(), p, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	tasks := b.submit(6, 500*time.Millisecond, true)
	done, zero := tasks[0], uint8(0)
	err := b.store.Apply(t.Context(), b.store.Partition(done.ID), 0, 1, []taskstore.Applied{{Terminal: &terminal.Terminal{
		SchemaVersion: 1, TaskID: done.ID, Status: task.Succeeded, Generation: &zero, Tenant: "acme", EndedAt: time.Now(),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	b.run(1)
	if got := b.ends(tasks[1:], time.Second); got[done.ID] != nil {
		t.Errorf("a task that had succeeded was ended again: %+v", got[done.ID][0])
	}
}

func TestWhatIsSettledIsNotScanned(t *testing.T) {
	b := setup(t, 0)
	b.submit(9, time.Millisecond, false)
	adm := kadm.NewClient(b.writer)
	for group, topics := range topic.Consumed([]string{pool}) {
		ends, err := adm.ListEndOffsets(t.Context(), topics...)
		if err != nil {
			t.Fatal(err)
		}
		if err := adm.CommitAllOffsets(t.Context(), group, ends.Offsets()); err != nil {
			t.Fatal(err)
		}
	}
	b.run(1)
	open := b.submit(3, time.Millisecond, false)
	b.expired(open) // and nothing else
}
