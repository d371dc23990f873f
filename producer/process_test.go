package producer_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/producer"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
)

// following gives the ingress its own follower.
func following(_ *producer.Config, d *producer.Deps) { d.Follower = nil }

// end publishes a task's terminal, as a worker would.
func (b *bundle) end(id task.ID, status task.Status) {
	b.t.Helper()
	cl, err := kafkaclient.New(kafkaclient.Config{Brokers: b.cluster.ListenAddrs()}, slog.New(slog.DiscardHandler), kafkaclient.ProducerOpts(1<<20)...)
	if err != nil {
		b.t.Fatal(err)
	}
	defer cl.Close()
	generation := uint8(0)
	pub := tasktopic.NewPublisher(cl, tasktopic.Params{ResultsPartitions: 12})
	end := &terminal.Terminal{
		SchemaVersion: 1, TaskID: id, Status: status, Generation: &generation, Tenant: "dev", Output: &task.Output{Text: "done"},
		CreatedAt: time.Now(), EndedAt: time.Now(),
	}
	if _, err := pub.Terminal(b.t.Context(), end); err != nil {
		b.t.Fatal(err)
	}
}

// project brings the terminals of the log into Redis, as the projector would.
func (b *bundle) project() {
	b.t.Helper()
	store := b.store()
	for _, r := range b.records(topic.Results) {
		end, err := wire.DecodeTerminal(tasktopic.FromKgo(r))
		if err != nil {
			b.t.Fatal(err)
		}
		err = errors.Join(
			store.Rebuild(b.t.Context(), r.Partition, 0, 0),
			store.Apply(b.t.Context(), r.Partition, r.Offset, r.Offset+1, []taskstore.Applied{{Terminal: end, Offset: r.Offset}}),
		)
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

// submitWaiting posts a task that waits for its result, and returns its id once
// its record is written.
func (b *bundle) submitWaiting() (task.ID, <-chan answer) {
	b.t.Helper()
	before := len(b.records(topic.Tasks("default", task.Standard)))
	got := make(chan answer, 1)
	go func() { got <- b.post("/v1/inference", hello, "Prefer", "wait=20") }() // got is awaited by every test
	var id task.ID
	eventually(b.t, "the record is there", func() bool {
		records := b.records(topic.Tasks("default", task.Standard))
		for _, r := range records {
			if read, _, err := wire.DecodeTask(tasktopic.FromKgo(r)); err == nil {
				id = max(id, read.ID) // ids sort by time
			}
		}
		return len(records) > before
	})
	return id, got
}

func (b *bundle) wantResult(id task.ID, a answer) {
	b.t.Helper()
	var got struct{ Data api.Task }
	if err := json.Unmarshal(a.body, &got); err != nil || a.status != http.StatusOK || got.Data.TaskID != id || got.Data.Output.Text != "done" {
		b.t.Errorf("%d %s", a.status, a.body)
	}
}

func TestAWaitingSubmitGetsItsResult(t *testing.T) {
	b := setup(t, following)
	id, got := b.submitWaiting()
	b.end(id, task.Succeeded)
	b.project()
	b.wantResult(id, <-got)
	t.Run("and a cancel afterwards the terminal that won", func(t *testing.T) {
		b.wantResult(id, b.post("/v1/tasks/"+string(id)+"/cancel", ""))
		if n := len(b.records(topic.Results)); n != 1 {
			t.Errorf("%d terminals", n)
		}
	})
}

// warm waits until the tail delivers by itself: it does so for tasks that are
// younger than it by more than clocks may differ.
func (b *bundle) warm() {
	b.t.Helper()
	eventually(b.t, "a cancel meets its own terminal", func() bool {
		id := b.accepted(b.post("/v1/inference", hello)).TaskID
		return b.post("/v1/tasks/"+string(id)+"/cancel", "").status == http.StatusOK
	})
}

func TestAWaitingSubmitGetsItsResultWithRedisDown(t *testing.T) {
	b := setup(t, following)
	b.redis.Close()
	b.warm()
	id, got := b.submitWaiting()
	b.end(id, task.Succeeded)
	b.wantResult(id, <-got)
}

func TestTheProcessDrains(t *testing.T) {
	b := setup(t) // for its broker and store
	addr := freeAddr(t)
	list := filepath.Join(t.TempDir(), "catalog.yaml")
	if err := os.WriteFile(list, []byte(models), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	env := map[string]string{
		"PENSTOCK_LISTEN": addr, "PENSTOCK_CATALOG": list, "PENSTOCK_REDIS_URL": "redis://" + b.redis.Addr(),
		"PENSTOCK_KAFKA_BROKERS": b.cluster.ListenAddrs()[0], "PENSTOCK_DRAIN_GRACE": "20s",
	}
	var log strings.Builder
	go func() {
		done <- producer.Main(ctx, lifecycle.Proc{Args: []string{"--log-level", "warn"}, Getenv: func(k string) string { return env[k] }, Stderr: &log, Stdout: &log})
	}()
	live := &bundle{t: t, cluster: b.cluster, url: "http://" + addr}
	eventually(t, "the process is ready", func() bool {
		resp, err := http.Get(live.url + "/readyz") //nolint:noctx // bounded by the loop
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	waiting := make(chan answer, 1)
	go func() { waiting <- live.post("/v1/inference", hello, "Prefer", "wait=60") }()
	eventually(t, "the task is written", func() bool { return len(b.records(topic.Tasks("default", task.Standard))) == 1 })
	began := time.Now()
	stop()
	if a := <-waiting; a.status != http.StatusAccepted {
		t.Errorf("the waiting call got %d %s", a.status, a.body)
	}
	if err := <-done; err != nil {
		t.Errorf("%v\n%s", err, log.String())
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the drain took %s", took)
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
