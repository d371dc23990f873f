package redrive_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
	"github.com/penstock/penstock/worker/redrive"
)

// cluster is a Kafka with our topics, and a projector over its results.
type cluster struct {
	t      *testing.T
	config kafkaclient.Config
	pub    *tasktopic.Publisher
	minter *task.Minter
	store  *taskstore.Store
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	c := &cluster{t: t, config: kafkaclient.Config{Brokers: fake.ListenAddrs(), ClientID: "test"}}
	cl := c.client(kafkaclient.ProducerOpts(1 << 24)...)
	plan, err := topic.Plan(topic.Params{Replication: 1, Partitions: partitions})
	if err != nil {
		t.Fatal(err)
	}
	if err := kafkaclient.EnsureTopics(t.Context(), cl, plan, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	c.pub = tasktopic.NewPublisher(cl, tasktopic.Params{ResultsPartitions: partitions})
	if c.minter, err = task.NewMinter(task.Secret{Key: []byte("0123456789abcdef")}); err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()})
	t.Cleanup(func() {
		if err := rdb.Close(); err != nil {
			t.Error(err)
		}
	})
	c.store = taskstore.New(rdb, taskstore.Params{Partitions: partitions})
	c.project()
	return c
}

func (c *cluster) client(opts ...kgo.Opt) *kgo.Client {
	c.t.Helper()
	cl, err := kafkaclient.New(c.config, slog.New(slog.DiscardHandler), opts...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(cl.Close)
	return cl
}

// project runs a projector until the test ends.
func (c *cluster) project() {
	c.t.Helper()
	for p := range int32(partitions) {
		if err := c.store.Rebuild(c.t.Context(), p, 0, 0); err != nil {
			c.t.Fatal(err)
		}
	}
	cl := c.client(kafkaclient.ReaderOpts(kgo.NewOffset().AtStart(), topic.Results)...)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			cl.PollFetches(ctx).EachPartition(func(p kgo.FetchTopicPartition) { c.apply(ctx, p) })
		}
	})
	c.t.Cleanup(func() { cancel(); wg.Wait() })
}

func (c *cluster) apply(ctx context.Context, p kgo.FetchTopicPartition) {
	var recs []taskstore.Applied
	for _, r := range p.Records {
		t, err := wire.DecodeTerminal(tasktopic.FromKgo(r))
		if err != nil {
			c.t.Error(err)
			continue
		}
		recs = append(recs, taskstore.Applied{Terminal: t, Offset: r.Offset})
	}
	if n := len(p.Records); n > 0 {
		if err := c.store.Apply(ctx, p.Partition, p.Records[0].Offset, p.Records[n-1].Offset+1, recs); err != nil && ctx.Err() == nil {
			c.t.Error(err)
		}
	}
}

// die writes a dead letter with a big and compressible value, and the terminal.
func (c *cluster) die(text string) *task.Task {
	c.t.Helper()
	now := time.Now().UTC()
	tk := &task.Task{
		SchemaVersion: 1, ID: c.minter.New("dev", now), Kind: task.Completion, Source: task.SourceAPI, Tenant: "dev", Model: "sim-chat",
		Class: task.Bulk, Payload: task.Payload{Text: text}, Timestamp: now, Deadline: now.Add(time.Hour),
	}
	rec, err := wire.EncodeTask(tk, task.Progress{Hop: 2, Attempts: 5}, "")
	if err != nil {
		c.t.Fatal(err)
	}
	l := deadletter.Letter{
		TaskID: tk.ID, Tenant: "dev", Model: tk.Model, Disposition: deadletter.Exhausted, Code: "unavailable",
		Message: "unavailable: connection refused", Attempts: 5, Origin: deadletter.Origin{Topic: topic.Tasks("default", task.Bulk), Offset: now.UnixNano()}, DeadAt: now,
	}
	if _, err := c.pub.DeadLetter(c.t.Context(), rec, l); err != nil {
		c.t.Fatal(err)
	}
	var g uint8
	if _, err := c.pub.Terminal(c.t.Context(), &terminal.Terminal{SchemaVersion: 1, TaskID: tk.ID, Status: task.Dead, Generation: &g, Tenant: "dev", EndedAt: now}); err != nil {
		c.t.Fatal(err)
	}
	return tk
}

func (c *cluster) start(owner string) *redriver {
	c.t.Helper()
	log := slog.New(slog.DiscardHandler)
	source, err := redrive.NewKafkaSource(c.config, log)
	if err != nil {
		c.t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	r, err := redrive.New(redrive.Params{
		Source: source, Publisher: c.pub, Store: c.store, Log: log, Metrics: reg,
		ResultsPartitions: partitions, Owner: owner, Pools: []string{"default"}, Token: config.Secret(adminToken), Lease: 500 * time.Millisecond,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.Run(ctx); err != nil {
			c.t.Errorf("Run: %v", err)
		}
	})
	stop := sync.OnceFunc(func() { cancel(); wg.Wait(); source.Close() })
	c.t.Cleanup(stop)
	d := &redriver{t: c.t, handler: r.Handler(), metrics: reg, stop: stop}
	d.ready()
	return d
}

// ready waits until the index is read.
func (r *redriver) ready() {
	r.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); pass(5 * time.Millisecond) {
		var l redrive.LetterList
		if code, _ := r.do("GET", "/admin/v1/dead-letters", "", &l); l.Complete || code == http.StatusForbidden {
			return
		}
	}
	r.t.Fatal("the index was not read within 10 s")
}

func TestAgainstKafka(t *testing.T) {
	c := newCluster(t)
	t.Run("empty topics are read at once", func(t *testing.T) {
		r := c.start("early")
		defer r.stop()
		if code, _ := r.do("POST", "/admin/v1/redrives", everything, nil); code != http.StatusNotFound {
			t.Errorf("redrive of nothing answered %d; want 404", code)
		}
	})
	tasks := map[task.ID]*task.Task{}
	for range 40 {
		tk := c.die(strings.Repeat("a prompt of some length. ", 2000))
		tasks[tk.ID] = tk
	}
	r := c.start("worker-1")
	t.Run("show fetches the record itself, with and without payload", func(t *testing.T) {
		for id, tk := range tasks {
			var d redrive.Detail
			if code, e := r.do("GET", "/admin/v1/dead-letters/"+string(id)+"?payload=true", "", &d); code != http.StatusOK {
				t.Fatalf("show answered %d: %s", code, e.Message)
			}
			if d.TaskID != id || !strings.Contains(string(d.Value), tk.Payload.Text) {
				t.Fatalf("show of %s has task %s and %d bytes of value", id, d.TaskID, len(d.Value))
			}
			var redacted redrive.Detail
			if r.do("GET", "/admin/v1/dead-letters/"+d.ID.String(), "", &redacted); !redacted.Redacted || redacted.Value != nil || redacted.TaskID != id {
				t.Errorf("redacted show = %+v", redacted)
			}
		}
	})
	t.Run("a record that is not there is 404", func(t *testing.T) {
		for _, id := range []string{"0-99999", "99-0"} {
			if code, e := r.do("GET", "/admin/v1/dead-letters/"+id, "", nil); code != http.StatusNotFound {
				t.Errorf("%s answered %d: %s", id, code, e.Message)
			}
		}
	})
	t.Run("a job survives its worker, and a second worker finishes it", func(t *testing.T) {
		j := r.redrive(`{"filter":{},"rate":40}`)
		pass(300 * time.Millisecond)
		r.stop()
		heir := c.start("worker-2")
		j = heir.until(j.ID, 20*time.Second, redrive.JobCompleted)
		if j.Redriven != len(tasks) {
			t.Errorf("job = %+v; want %d redriven", j, len(tasks))
		}
		c.checkPublished(tasks, j.ID)
		for id := range tasks {
			found, err := c.store.Get(t.Context(), id)
			if err != nil || found.View.Status != task.Queued || found.View.Generation != 1 {
				t.Fatalf("a client that polls %s sees %s in generation %d (%v); want queued in 1", id, found.View.Status, found.View.Generation, err)
			}
		}
		if code, e := heir.do("POST", "/admin/v1/redrives", everything, nil); code != http.StatusNotFound {
			t.Errorf("a second redrive answered %d (%s); want 404: nothing is dead", code, e.Message)
		}
	})
}

// checkPublished reads the tasks topic and demands every task, unchanged, in
// generation 1.
func (c *cluster) checkPublished(tasks map[task.ID]*task.Task, job string) {
	c.t.Helper()
	cl := c.client(kafkaclient.ReaderOpts(kgo.NewOffset().AtStart(), topic.Tasks("default", task.Bulk))...)
	ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
	defer cancel()
	seen := map[task.ID]bool{}
	for len(seen) < len(tasks) {
		f := cl.PollFetches(ctx)
		if err := f.Err(); errors.Is(err, context.DeadlineExceeded) {
			c.t.Fatalf("%d of %d tasks on the topic", len(seen), len(tasks))
		}
		f.EachRecord(func(r *kgo.Record) {
			got, p, err := wire.DecodeTask(tasktopic.FromKgo(r))
			if err != nil || tasks[got.ID] == nil || got.Payload.Text != tasks[got.ID].Payload.Text {
				c.t.Fatalf("record %d: %v", r.Offset, err)
			}
			if p.Generation != 1 || p.RedriveJob != job || p.Attempts != 0 || p.Hop != 0 {
				c.t.Errorf("progress = %+v", p)
			}
			seen[got.ID] = true
		})
	}
}
