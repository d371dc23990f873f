package worker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/penstock/penstock/internal/catalog"
	"github.com/penstock/penstock/internal/devstack"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
	"github.com/penstock/penstock/worker"
	"github.com/penstock/penstock/worker/attempt/attempttest"
	"github.com/penstock/penstock/worker/backend"

	goredis "github.com/redis/go-redis/v9"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const partitions = 4

// world is a broker and a Redis on virtual networks, in fake time.
type world struct {
	t       *testing.T
	net     *kfake.VirtualNetwork
	cluster *kfake.Cluster
	redis   *devstack.Store
	kafka   kafkaclient.Config
	cl      *kgo.Client
	pub     *tasktopic.Publisher
	minter  *task.Minter
	engine  *engine
}

// engine is a scripted backend that remembers what it ran.
type engine struct {
	mu    sync.Mutex
	runs  map[task.ID]int
	do    func(ctx context.Context, items []backend.Item) []backend.Outcome
	batch int
}

func (e *engine) Join(t *task.Task) (string, int) {
	if t.Stream {
		return "", 1
	}
	return t.Model, e.batch
}

func (e *engine) Run(ctx context.Context, items []backend.Item) []backend.Outcome {
	e.mu.Lock()
	for _, it := range items {
		e.runs[it.Task.ID]++
	}
	do := e.do
	e.mu.Unlock()
	return do(ctx, items)
}

func (e *engine) script(do func(ctx context.Context, items []backend.Item) []backend.Outcome) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.do = do
}

func (e *engine) count(id task.ID) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.runs[id]
}

func echo(_ context.Context, items []backend.Item) []backend.Outcome {
	out := make([]backend.Outcome, len(items))
	for i, it := range items {
		out[i] = attempttest.OK(it.Task.Payload.Text)
	}
	return out
}

func inWorld(t *testing.T, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, net: &kfake.VirtualNetwork{}, redis: openStore(t), engine: &engine{runs: map[task.ID]int{}, do: echo, batch: 8}}
		var err error
		w.cluster, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(w.net.Listen))
		if err != nil {
			t.Fatal(err)
		}
		defer w.cluster.Close()
		defer w.redis.Close()
		w.kafka = kafkaclient.Config{Brokers: w.cluster.ListenAddrs(), ClientID: "test", Dial: w.net.DialContext}
		quiet := slog.New(slog.DiscardHandler)
		if w.cl, err = kafkaclient.New(w.kafka, quiet, append(kafkaclient.ProducerOpts(64<<20), kgo.ProducerBatchCompression(kgo.NoCompression()))...); err != nil {
			t.Fatal(err)
		}
		defer w.cl.Close()
		plan, err := topic.Plan(topic.Params{Replication: 1, Partitions: partitions})
		if err != nil {
			t.Fatal(err)
		}
		if err := kafkaclient.EnsureTopics(t.Context(), w.cl, plan, quiet); err != nil {
			t.Fatal(err)
		}
		w.pub = tasktopic.NewPublisher(w.cl, tasktopic.Params{ResultsPartitions: partitions})
		if w.minter, err = task.NewMinter(task.Secret{Key: make([]byte, 16)}); err != nil {
			t.Fatal(err)
		}
		f(t, w)
	})
}

func openStore(t *testing.T) *devstack.Store {
	t.Helper()
	s, err := devstack.OpenStore(devstack.StoreParams{Virtual: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const models = `
models: [{id: m, kinds: [chat, completion]}]
pools: [{name: default, batch: {max_tasks: 8, max_delay: 10ms}, backends: [{name: b, url: "http://x", concurrency: 4}]}]
`

// running is a worker at work; stop drains it, kill cuts it from the world.
type running struct {
	stop  func()
	kill  func()
	mend  func() // undoes kill
	ready *lifecycle.Readiness
	reg   *prometheus.Registry
}

func (w *world) start(change ...func(*worker.Config)) *running {
	w.t.Helper()
	cfg := worker.DefaultConfig()
	cfg.Kafka, cfg.Partitions, cfg.Name = w.kafka, partitions, "w"
	cfg.CommitInterval = 100 * time.Millisecond
	link := &link{}
	cfg.Kafka.Dial = link.over(w.net.DialContext)
	cfg.Redis.URL = "redis://127.0.0.1:6379/0"
	cfg.Redis.Dialer = link.over(w.redis.Dial)
	for _, c := range change {
		c(&cfg)
	}
	cat, err := catalog.Parse([]byte(models))
	if err != nil {
		w.t.Fatal(err)
	}
	r := &running{ready: new(lifecycle.Readiness), reg: prometheus.NewRegistry()}
	wk, err := worker.Open(w.t.Context(), cfg, worker.Deps{
		Log: slog.New(slog.DiscardHandler), Registry: r.reg, Ready: r.ready, Catalog: cat,
		BackendFunc: func(catalog.Pool, catalog.Backend) (backend.Backend, error) { return w.engine, nil },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- wk.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !link.broken() {
			w.t.Errorf("run: %v", err)
		}
	})
	r.kill, r.mend = link.cut, link.mend
	return r
}

// link is a worker's connections, which can be cut for good.
type link struct {
	mu    sync.Mutex
	conns []net.Conn
	dead  bool
}

func (l *link) over(dial func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.dead {
			return nil, errors.New("unplugged")
		}
		c, err := dial(ctx, network, addr)
		if err == nil {
			l.conns = append(l.conns, c)
		}
		return c, err
	}
}

func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = true
	for _, c := range l.conns {
		_ = c.Close()
	}
}

func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = false
}

func (l *link) broken() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dead
}

func (w *world) submit(change func(t *task.Task)) *task.Task {
	w.t.Helper()
	t := &task.Task{
		SchemaVersion: 1, ID: w.minter.New("acme", time.Now()), Kind: task.Chat, Source: task.SourceAPI, Tenant: "acme", Model: "m",
		Class: task.Standard, Payload: task.Payload{Text: "hi"}, Timestamp: time.Now(), Deadline: time.Now().Add(time.Hour),
	}
	if change != nil {
		change(t)
	}
	if _, err := w.pub.Task(context.Background(), t, "default", task.Progress{}); err != nil {
		w.t.Fatal(err)
	}
	return t
}

// read returns all records of a topic so far.
func (w *world) read(name string) []wire.Record {
	w.t.Helper()
	ends, err := kadm.NewClient(w.cl).ListEndOffsets(context.Background(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	left := int64(0)
	ends.Each(func(o kadm.ListedOffset) { left += o.Offset })
	r, err := kafkaclient.New(w.kafka, slog.New(slog.DiscardHandler), kafkaclient.ReaderOpts(kgo.NewOffset().AtStart(), name)...)
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Close()
	var out []wire.Record
	for int64(len(out)) < left {
		r.PollFetches(context.Background()).EachRecord(func(rec *kgo.Record) { out = append(out, tasktopic.FromKgo(rec)) })
	}
	return out
}

// ends folds the results: what every task's state is, and how many terminals
// it got.
func (w *world) ends() (map[task.ID]*terminal.Terminal, map[task.ID]int) {
	w.t.Helper()
	won, count := map[task.ID]*terminal.Terminal{}, map[task.ID]int{}
	for _, rec := range w.read(topic.Results) {
		t, err := wire.DecodeTerminal(rec)
		if err != nil {
			w.t.Fatal(err)
		}
		if count[t.TaskID]++; won[t.TaskID] == nil {
			won[t.TaskID] = t
		}
	}
	return won, count
}

// unsettled is the lag of the pool's group.
func (w *world) unsettled() int64 {
	w.t.Helper()
	lags, err := kadm.NewClient(w.cl).Lag(context.Background(), topic.WorkerGroup("default"))
	if err != nil {
		w.t.Fatal(err)
	}
	var n int64
	lags.Each(func(l kadm.DescribedGroupLag) { n += l.Lag.Total() })
	return n
}

func TestTasksAreRunOnceAndCommitted(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var tasks []*task.Task
		for i := range 200 {
			tasks = append(tasks, w.submit(func(tk *task.Task) {
				tk.Payload.Text, tk.Stream = fmt.Sprint(i), i%10 == 0
				tk.Class = task.Classes()[i%3]
			}))
		}
		r := w.start()
		time.Sleep(time.Minute)
		if err := r.ready.Err(); err != nil {
			t.Errorf("not ready: %v", err)
		}
		r.stop()
		ends, counts := w.ends()
		for i, tk := range tasks {
			end := ends[tk.ID]
			if end == nil || end.Status != task.Succeeded || end.Output.Text != fmt.Sprint(i) || counts[tk.ID] != 1 || w.engine.count(tk.ID) != 1 {
				t.Fatalf("task %d: %d runs, %d terminals, %+v", i, w.engine.count(tk.ID), counts[tk.ID], end)
			}
		}
		if n := w.unsettled(); n != 0 {
			t.Errorf("%d records are uncommitted", n)
		}
	})
}

func TestADrainUnderLoadRepeatsNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.engine.script(func(ctx context.Context, items []backend.Item) []backend.Outcome {
			time.Sleep(500 * time.Millisecond)
			return echo(ctx, items)
		})
		var tasks []*task.Task
		for range 500 {
			tasks = append(tasks, w.submit(nil))
		}
		for range 4 { // rolled over and over
			r := w.start()
			time.Sleep(5 * time.Second)
			began := time.Now()
			r.stop()
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("drain took %s", took)
			}
		}
		r := w.start()
		time.Sleep(time.Minute)
		r.stop()
		_, counts := w.ends()
		for i, tk := range tasks {
			if counts[tk.ID] != 1 || w.engine.count(tk.ID) != 1 {
				t.Fatalf("task %d: %d runs, %d terminals", i, w.engine.count(tk.ID), counts[tk.ID])
			}
		}
	})
}

func TestACrashRepeatsOnlyWhatWasUnfinished(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.engine.script(func(ctx context.Context, items []backend.Item) []backend.Outcome {
			if items[0].Task.Payload.Text == "stuck" {
				<-items[0].Context(ctx).Done()
				return backend.Fail(len(items), ctx.Err())
			}
			return echo(ctx, items)
		})
		stuck, done := map[task.ID]bool{}, map[task.ID]bool{}
		for i := range 400 {
			tk := w.submit(func(tk *task.Task) {
				if i%200 == 20 { // one stuck task leaves room beside it
					tk.Payload.Text, tk.Stream = "stuck", true
				}
			})
			(map[bool]map[task.ID]bool{true: stuck, false: done})[tk.Payload.Text == "stuck"][tk.ID] = true
		}
		first := w.start()
		time.Sleep(30 * time.Second)
		first.kill()
		w.engine.script(echo)
		second := w.start()
		time.Sleep(time.Minute) // the dead member's session ends
		second.stop()
		ends, _ := w.ends()
		for id := range done {
			if w.engine.count(id) != 1 {
				t.Errorf("a finished task ran %d times", w.engine.count(id))
			}
		}
		for id := range stuck {
			if w.engine.count(id) != 2 || ends[id] == nil || ends[id].Status != task.Succeeded {
				t.Errorf("an unfinished task ran %d times: %+v", w.engine.count(id), ends[id])
			}
		}
		first.stop()
	})
}

func TestPoisonGoesThroughTheTiersToTheDeadLettersAlone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		poison := map[task.ID]bool{}
		w.engine.script(func(ctx context.Context, items []backend.Item) []backend.Outcome {
			for _, it := range items {
				if it.Task.Payload.Text == "poison" {
					return backend.Fail(len(items), fault.New(fault.Unavailable, "the engine crashed"))
				}
			}
			return echo(ctx, items)
		})
		r := w.start()
		defer r.stop()
		healthy := map[task.ID]bool{}
		for i := range 300 {
			tk := w.submit(func(tk *task.Task) {
				if i%100 == 50 {
					tk.Payload.Text = "poison"
				}
			})
			if tk.Payload.Text == "poison" {
				poison[tk.ID] = true
			} else {
				healthy[tk.ID] = true
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(5 * time.Minute)
		ends, counts := w.ends()
		for id := range healthy {
			if end := ends[id]; end == nil || end.Status != task.Succeeded || len(end.Attempts) != 1 || counts[id] != 1 {
				t.Fatalf("healthy task: %+v", end)
			}
		}
		buried := map[task.ID]bool{}
		for _, rec := range w.read(topic.DeadLetters) {
			l, err := wire.DecodeDeadLetter(rec)
			if err != nil {
				t.Fatal(err)
			}
			buried[l.TaskID] = true
			if l.Attempts != 5 || len(l.History) != 5 || !poison[l.TaskID] {
				t.Errorf("letter %+v", l)
			}
			if original, _, err := wire.DecodeTask(wire.Record{Key: rec.Key, Value: rec.Value, Headers: wire.OriginalHeaders(rec)}); err != nil || original.ID != l.TaskID {
				t.Errorf("the letter's record: %v", err)
			}
		}
		for id := range poison {
			if !buried[id] || ends[id] == nil || ends[id].Status != task.Dead {
				t.Errorf("poison: buried %t, %+v", buried[id], ends[id])
			}
		}
	})
}

func TestCancelByRedisStopsARunningAttempt(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.engine.script(func(ctx context.Context, items []backend.Item) []backend.Outcome {
			<-items[0].Context(ctx).Done()
			return backend.Fail(len(items), items[0].Context(ctx).Err())
		})
		r := w.start()
		defer r.stop()
		time.Sleep(10 * time.Second)
		tk := w.submit(func(tk *task.Task) { tk.Stream = true })
		time.Sleep(2 * time.Second)
		rdb := w.rdb()
		defer rdb.Close()
		if err := taskstore.New(rdb, taskstore.Params{Partitions: partitions}).SignalCancel(context.Background(), tk.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if ends, _ := w.ends(); ends[tk.ID] == nil || ends[tk.ID].Status != task.Cancelled || ends[tk.ID].Generation == nil {
			t.Errorf("terminal %+v", ends[tk.ID])
		}
	})
}

func (w *world) rdb() *goredis.Client {
	return goredis.NewClient(&goredis.Options{Addr: "127.0.0.1:6379", Dialer: w.redis.Dial})
}

func TestTokensReachRedisAndALostRedisStopsNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.engine.script(func(ctx context.Context, items []backend.Item) []backend.Outcome {
			for i := range 50 {
				if items[0].Emit != nil {
					items[0].Emit(backend.Piece{Text: fmt.Sprintf("%d ", i)})
				}
				time.Sleep(20 * time.Millisecond)
			}
			return echo(ctx, items)
		})
		r := w.start()
		defer r.stop()
		time.Sleep(10 * time.Second)
		tk := w.submit(func(tk *task.Task) { tk.Stream = true })
		time.Sleep(5 * time.Second)
		rdb := w.rdb()
		defer rdb.Close()
		entries, err := rdb.XRange(context.Background(), rediskey.Events(topic.ResultsPartition(tk.ID, partitions), tk.ID), "-", "+").Result()
		if err != nil || len(entries) < 10 {
			t.Fatalf("%d events, err %v", len(entries), err)
		}
		if id, err := event.ParseID(entries[0].ID); err != nil || id.Seq != 0 {
			t.Errorf("first event %s: %v", entries[0].ID, err)
		}
		w.redis.Redis().SetError("LOADING Redis is loading the dataset in memory")
		second := w.submit(func(tk *task.Task) { tk.Stream = true })
		time.Sleep(10 * time.Second)
		if ends, _ := w.ends(); ends[second.ID] == nil || ends[second.ID].Status != task.Succeeded {
			t.Errorf("without Redis: %+v", ends[second.ID])
		}
	})
}

func TestExpiryAndUndecodableRecords(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.start()
		defer r.stop()
		late := w.submit(func(tk *task.Task) { tk.Deadline = time.Now() })
		id := w.minter.New("acme", time.Now())
		err := w.cl.ProduceSync(context.Background(), &kgo.Record{
			Topic: topic.Tasks("default", task.Bulk), Key: []byte(id), Value: []byte(`{"schema_version":99}`),
			Headers: []kgo.RecordHeader{{Key: wire.HeaderTenant, Value: []byte("acme")}},
		}).FirstErr()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		ends, _ := w.ends()
		if ends[late.ID] == nil || ends[late.ID].Status != task.Expired || w.engine.count(late.ID) != 0 {
			t.Errorf("late task: %d runs, %+v", w.engine.count(late.ID), ends[late.ID])
		}
		if ends[id] == nil || ends[id].Status != task.Dead || len(w.read(topic.DeadLetters)) != 1 {
			t.Errorf("undecodable record: %+v", ends[id])
		}
		if n := w.unsettled(); n != 0 {
			t.Errorf("%d records are uncommitted", n)
		}
	})
}

func TestOpenSaysWhatIsWrongAndLeavesNothingOpen(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		cfg := worker.DefaultConfig()
		cfg.Kafka, cfg.Partitions = w.kafka, partitions
		d := worker.Deps{Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()}
		if _, err := worker.Open(t.Context(), cfg, d); err == nil {
			t.Error("opened without a catalog")
		}
		cat, err := catalog.Parse([]byte(models))
		if err != nil {
			t.Fatal(err)
		}
		d.Catalog = cat
		cfg.Pools = []string{"gone"}
		if _, err := worker.Open(t.Context(), cfg, d); err == nil {
			t.Error("opened with a pool that is not in the catalog")
		}
		cfg.Pools = nil
		d.BackendFunc = func(catalog.Pool, catalog.Backend) (backend.Backend, error) { return nil, errors.New("no engine") }
		if _, err := worker.Open(t.Context(), cfg, d); err == nil {
			t.Error("opened without a backend")
		}
	})
}
