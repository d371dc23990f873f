package project_test

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
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
	"github.com/penstock/penstock/internal/projection"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/resultsvc/project"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const partitions = 3

type bundle struct {
	t       *testing.T
	cluster *kfake.Cluster
	redis   *miniredis.Miniredis
	store   *taskstore.Store
	minter  *task.Minter
	writer  *kgo.Client
	pub     *tasktopic.Publisher
}

func setup(t *testing.T) *bundle {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, topic.Results))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	mr := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: mr.Addr(), MaxRetries: -1, ContextTimeoutEnabled: true, DialerRetries: 1})
	t.Cleanup(func() { _ = rdb.Close() })
	minter, err := task.NewMinter(task.Secret{Key: []byte("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	b := &bundle{
		t: t, cluster: cluster, redis: mr, minter: minter,
		store: taskstore.New(rdb, taskstore.Params{Partitions: partitions}),
	}
	b.writer = b.client(kafkaclient.ProducerOpts(1 << 20)...)
	b.pub = tasktopic.NewPublisher(b.writer, tasktopic.Params{ResultsPartitions: partitions})
	return b
}

func (b *bundle) client(role ...kgo.Opt) *kgo.Client {
	b.t.Helper()
	cl, err := kafkaclient.New(kafkaclient.Config{Brokers: b.cluster.ListenAddrs()}, slog.New(slog.DiscardHandler), role...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(cl.Close)
	return cl
}

// run runs a projector until the returned function is called.
func (b *bundle) run() (stop func()) {
	b.t.Helper()
	p := project.New(project.Results(b.store), project.Params{Check: 20 * time.Millisecond}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := p.Run(ctx, kafkaclient.Config{Brokers: b.cluster.ListenAddrs()}); err != nil {
			b.t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	b.t.Cleanup(stop)
	return stop
}

func (b *bundle) publish(s task.Status) task.ID {
	b.t.Helper()
	zero, now := uint8(0), time.Now()
	id := b.minter.New("acme", now)
	_, err := b.pub.Terminal(b.t.Context(), &terminal.Terminal{
		SchemaVersion: 1, TaskID: id, Status: s, Generation: &zero, Tenant: "acme", CreatedAt: now, EndedAt: now,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return id
}

// await polls until every id is known and its partition caught up.
func (b *bundle) await(ids ...task.ID) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		left := 0
		if found, err := b.store.GetMany(ctx, ids); err != nil {
			left = len(ids)
		} else {
			for _, f := range found {
				if !f.Known || !f.CaughtUp || f.Terminal == nil {
					left++
				}
			}
		}
		if left == 0 {
			return
		}
		select {
		case <-ctx.Done():
			b.t.Fatalf("%d of %d results are not projected", left, len(ids))
		case <-tick.C:
		}
	}
}

func (b *bundle) publishMany(n int) []task.ID {
	b.t.Helper()
	var ids []task.ID
	for range n {
		ids = append(ids, b.publish(task.Succeeded))
	}
	return ids
}

func TestResultsReachRedis(t *testing.T) {
	b := setup(t)
	before := b.publishMany(20)
	b.run()
	b.await(before...)
	b.await(b.publishMany(20)...)
}

func TestAnIdleRedisThatLostItsDataIsFilledAgain(t *testing.T) {
	b := setup(t)
	ids := b.publishMany(30)
	b.run()
	b.await(ids...)
	for range 3 {
		b.redis.FlushAll()
		b.await(ids...)
	}
	b.await(b.publishMany(5)...)
}

func TestALossInTheMiddleOfARebuildIsNoticed(t *testing.T) {
	b := setup(t)
	ids := b.publishMany(300)
	b.run()
	for range 5 {
		b.redis.FlushAll()
		time.AfterFunc(time.Duration(rand.IntN(30))*time.Millisecond, b.redis.FlushAll)
		b.await(ids[:10]...) // some of it may be from before the second loss
	}
	b.await(ids...)
}

func TestOneLostPartitionIsFilledAgain(t *testing.T) {
	b := setup(t)
	ids := b.publishMany(60)
	b.run()
	b.await(ids...)
	for p := range int32(partitions) {
		prefix := strings.TrimSuffix(rediskey.Projection(p), "projection")
		for _, key := range b.redis.Keys() {
			if strings.HasPrefix(key, prefix) {
				b.redis.Del(key)
			}
		}
		b.await(ids...)
	}
}

// A replica that is promoted lacks what its master was told last: positions
// and results alike.
func TestAnOlderCopyOfRedisIsBroughtUpToDate(t *testing.T) {
	b := setup(t)
	b.run()
	early := b.publishMany(20)
	b.await(early...)
	copied := map[string]projection.Position{}
	for p := range int32(partitions) {
		at, err := b.store.Projection(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		copied[rediskey.Projection(p)] = at
	}
	late := b.publishMany(40)
	b.await(late...)
	for _, id := range late {
		p := b.store.Partition(id)
		b.redis.Del(rediskey.Task(p, id))
		b.redis.Del(rediskey.Result(p, id))
		b.redis.Del(rediskey.Events(p, id))
	}
	for key, at := range copied {
		b.redis.HSet(key, "next", strconv.FormatInt(at.Next, 10))
	}
	b.await(append(early, late...)...)
}

func TestProjectionGoesOnWhereRedisStandsNotWhereTheGroupDoes(t *testing.T) {
	b := setup(t)
	stop := b.run()
	first := b.publishMany(10)
	b.await(first...)
	stop() // commits the end
	b.redis.FlushAll()
	b.run()
	b.await(first...)
	b.await(b.publishMany(10)...)
}

func TestNothingIsLostWhileRedisIsDown(t *testing.T) {
	b := setup(t)
	b.run()
	b.await(b.publishMany(3)...)
	b.redis.Close()
	ids := b.publishMany(12)
	if err := b.redis.Restart(); err != nil {
		t.Fatal(err)
	}
	b.await(ids...)
}

func TestARedisThatIsDownAtTheStartIsWaitedFor(t *testing.T) {
	b := setup(t)
	ids := b.publishMany(5)
	b.redis.Close()
	b.run()
	more := b.publishMany(5)
	if err := b.redis.Restart(); err != nil {
		t.Fatal(err)
	}
	b.await(append(ids, more...)...)
}

func TestUndecodableRecordsArePassedOver(t *testing.T) {
	b := setup(t)
	b.run()
	for p := range int32(partitions) {
		for _, value := range []string{"", "{", `{"schema_version":99}`} {
			rec := &kgo.Record{Topic: topic.Results, Key: []byte("x"), Value: []byte(value)}
			kafkaclient.PinPartition(rec, p)
			if err := b.writer.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.await(b.publishMany(9)...)
	b.redis.FlushAll()
	b.await(b.publishMany(9)...)
}

func TestALogMadeAnewIsReadFromItsStart(t *testing.T) {
	b := setup(t)
	for p := range int32(partitions) { // as an earlier log left it
		if err := b.store.Rebuild(t.Context(), p, 500, 500); err != nil {
			t.Fatal(err)
		}
	}
	ids := b.publishMany(10)
	b.run()
	b.await(ids...)
}

func TestDeletedResultsAreSkipped(t *testing.T) {
	b := setup(t)
	stop := b.run()
	b.await(b.publishMany(12)...)
	stop()
	gone := b.publishMany(30)
	adm := kadm.NewClient(b.writer)
	ends, err := adm.ListEndOffsets(t.Context(), topic.Results)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := adm.DeleteRecords(t.Context(), ends.Offsets()); err != nil {
		t.Fatal(err)
	}
	b.run()
	b.await(b.publishMany(12)...)
	if found, err := b.store.GetMany(t.Context(), gone); err != nil || found[0].Terminal != nil {
		t.Errorf("a deleted result is there: %+v, %v", found[0], err)
	}
}

func TestTwoProjectorsShareTheWork(t *testing.T) {
	b := setup(t)
	b.run()
	stop := b.run()
	b.await(b.publishMany(30)...)
	stop()
	b.await(b.publishMany(30)...)
}
