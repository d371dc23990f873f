package worker_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
	"github.com/penstock/penstock/worker/backend"
)

// project applies results to the store, as the results service does, until the
// returned function is called.
func (w *world) project() (stop func()) {
	w.t.Helper()
	rdb := w.rdb()
	store := taskstore.New(rdb, taskstore.Params{Partitions: partitions})
	for p := range int32(partitions) {
		if err := store.Rebuild(context.Background(), p, 0, 0); err != nil {
			w.t.Fatal(err)
		}
	}
	cl, err := kafkaclient.New(w.kafka, slog.New(slog.DiscardHandler), kafkaclient.ReaderOpts(kgo.NewOffset().AtStart(), topic.Results)...)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			cl.PollFetches(ctx).EachPartition(func(p kgo.FetchTopicPartition) { w.apply(ctx, store, p) })
		}
	})
	return func() {
		cancel()
		wg.Wait()
		cl.Close()
		_ = rdb.Close()
	}
}

func (w *world) apply(ctx context.Context, store *taskstore.Store, p kgo.FetchTopicPartition) {
	if len(p.Records) == 0 {
		return
	}
	var recs []taskstore.Applied
	for _, r := range p.Records {
		if end, err := wire.DecodeTerminal(tasktopic.FromKgo(r)); err == nil {
			recs = append(recs, taskstore.Applied{Terminal: end, Offset: r.Offset})
		}
	}
	last := p.Records[len(p.Records)-1].Offset
	if err := store.Apply(ctx, p.Partition, p.Records[0].Offset, last+1, recs); err != nil && ctx.Err() == nil {
		w.t.Errorf("apply results: %v", err)
	}
}

// rebalanced runs tasks while workers come and go, and returns how many runs
// were repeats.
func rebalanced(t *testing.T, w *world) (repeats int) {
	t.Helper()
	w.engine.script(func(ctx context.Context, items []backend.Item) []backend.Outcome {
		time.Sleep(4700 * time.Millisecond) // not in step with heartbeats
		return echo(ctx, items)
	})
	var tasks []*task.Task
	for i := range 800 {
		tasks = append(tasks, w.submit(func(tk *task.Task) {
			tk.Deadline = tk.Deadline.Add(time.Duration(i) * time.Second) // runs of all partitions are mixed
		}))
	}
	first := w.start()
	time.Sleep(10 * time.Second)
	second := w.start()
	time.Sleep(10 * time.Second)
	third := w.start()
	time.Sleep(10 * time.Second)
	third.stop()
	time.Sleep(5 * time.Minute)
	second.stop()
	first.stop()
	ends, _ := w.ends()
	for _, tk := range tasks {
		if end := ends[tk.ID]; end == nil || end.Status != task.Succeeded || countedAttempts(end.Attempts) != 1 || len(end.Attempts) != 1 {
			t.Fatalf("task ended %+v", end)
		}
		repeats += w.engine.count(tk.ID) - 1
	}
	if n := w.unsettled(); n != 0 {
		t.Errorf("%d records are uncommitted", n)
	}
	t.Logf("%d of %d tasks were run again", repeats, len(tasks))
	return repeats
}

func TestARebalanceUnderLoadRepeatsNothingWhileClaimsBeat(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.project()()
		if n := rebalanced(t, w); n > 8 { // 1 %
			t.Errorf("%d of 800 tasks were run again", n)
		}
	})
}

// The same without claims: it shows that the test above can fail.
func TestARebalanceUnderLoadRepeatsWorkWithoutAStore(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.redis.Redis().SetError("LOADING Redis is loading the dataset in memory")
		if n := rebalanced(t, w); n <= 8 {
			t.Errorf("only %d tasks were run again: rebalances do not fall into running work", n)
		}
	})
}
