package producer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/penstock/penstock/internal/catalog"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/producer"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/spec"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	hello  = `{"model":"sim-chat","payload":{"text":"hello"}}`
	models = "models:\n  - {id: sim-chat}\n  - {id: sim-embed, pool: embed, kinds: [embedding]}\n" +
		"pools:\n  - {backends: [{url: \"sim://\"}]}\n  - {name: embed, backends: [{url: \"sim://\"}]}\n"
)

// bundle is an ingress over a broker and a store in this process.
type bundle struct {
	t       *testing.T
	cluster *kfake.Cluster
	redis   *miniredis.Miniredis
	service *producer.Service
	url     string
}

func setup(t *testing.T, change ...func(*producer.Config, *producer.Deps)) *bundle {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	b := &bundle{t: t, cluster: cluster, redis: miniredis.RunT(t)}
	cfg, deps := b.config()
	for _, c := range change {
		c(&cfg, &deps)
	}
	server := httpserver.New(cfg.HTTPConfig.Config, deps.Log, deps.Registry)
	b.service, err = producer.Open(t.Context(), cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	b.service.Register(server.Echo())
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := b.service.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	web := httptest.NewServer(server.Echo())
	b.url = web.URL
	t.Cleanup(func() { web.Close(); stop(); wg.Wait(); http.DefaultClient.CloseIdleConnections() })
	return b
}

func (b *bundle) config() (producer.Config, producer.Deps) {
	b.t.Helper()
	list, err := catalog.Parse([]byte(models))
	if err != nil {
		b.t.Fatal(err)
	}
	cfg := producer.DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	cfg.Kafka.Brokers = b.cluster.ListenAddrs()
	cfg.Redis.URL = config.Secret("redis://" + b.redis.Addr())
	return cfg, producer.Deps{Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry(), Catalog: list, Follower: idle()}
}

// idle is a follower that nobody runs, so that no terminal reaches it.
func idle() *follow.Follower { return follow.New(nil, nil, follow.Params{}) }

type answer struct {
	status int
	header http.Header
	body   []byte
}

// post sends JSON, with headers given as name, value, …. It may be called from
// any goroutine.
func (b *bundle) post(path, body string, headers ...string) answer {
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.url+path, strings.NewReader(body))
	if err != nil {
		b.t.Error(err)
		return answer{}
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Error(err)
		return answer{}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Error(err)
	}
	return answer{resp.StatusCode, resp.Header, text}
}

func (b *bundle) accepted(a answer) api.Accepted {
	b.t.Helper()
	var out struct{ Data api.Accepted }
	if err := json.Unmarshal(a.body, &out); err != nil || a.status != http.StatusAccepted {
		b.t.Fatalf("%d %s", a.status, a.body)
	}
	return out.Data
}

// records reads everything a topic holds.
func (b *bundle) records(name string) []*kgo.Record {
	b.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.cluster.ListenAddrs()...), kgo.ConsumeTopics(name), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		b.t.Fatal(err)
	}
	defer cl.Close()
	var out []*kgo.Record
	for {
		ctx, cancel := context.WithTimeout(b.t.Context(), 300*time.Millisecond)
		fetches := cl.PollFetches(ctx)
		cancel()
		if fetches.NumRecords() == 0 {
			return out
		}
		out = append(out, fetches.Records()...)
	}
}

func (b *bundle) store() *taskstore.Store {
	b.t.Helper()
	rdb, err := redisclient.New(redisclient.Config{URL: config.Secret("redis://" + b.redis.Addr())})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = rdb.Close() })
	return taskstore.New(rdb, taskstore.Params{Partitions: 12})
}

// valid checks a record's value against the published schema of its kind.
func (b *bundle) valid(name string, value []byte) {
	b.t.Helper()
	set, err := validate.Compile(spec.FS)
	if err != nil {
		b.t.Fatal(err)
	}
	schema, err := set.Schema(name)
	if err != nil {
		b.t.Fatal(err)
	}
	var read any
	if err := schema.Decode(value, &read); err != nil {
		b.t.Errorf("%s: %v in %s", name, err, value)
	}
}

func TestAnAcceptedTaskIsOneReadableRecord(t *testing.T) {
	b := setup(t)
	got := b.accepted(b.post("/v1/inference", hello, "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
	records := b.records(topic.Tasks("default", task.Standard))
	if len(records) != 1 {
		t.Fatalf("%d records", len(records))
	}
	rec := tasktopic.FromKgo(records[0])
	read, progress, err := wire.DecodeTask(rec)
	if err != nil || read.ID != got.TaskID || read.Tenant != "dev" || read.Kind != task.Completion || progress.Generation != 0 {
		t.Errorf("%+v %+v %v", read, progress, err)
	}
	b.valid("task", rec.Value)
	if trace, _ := rec.Get(wire.HeaderTraceparent); !strings.Contains(trace, "0af7651916cd43dd8448eb211c80319c") {
		t.Errorf("the caller's trace is lost: %q", trace)
	}
	eventually(t, "the hint arrives", func() bool {
		found, err := b.store().Get(t.Context(), got.TaskID)
		return err == nil && found.View.Status == task.Queued
	})
}

func TestIdempotencyOverTheRealStore(t *testing.T) {
	b := setup(t)
	key := []string{"Idempotency-Key", "k-1"}
	first := b.accepted(b.post("/v1/inference", hello, key...))
	if again := b.accepted(b.post("/v1/inference", hello, key...)); again != first {
		t.Errorf("%+v, then %+v", first, again)
	}
	if other := b.post("/v1/inference", strings.Replace(hello, "hello", "bye", 1), key...); other.status != http.StatusUnprocessableEntity {
		t.Errorf("another body got %d", other.status)
	}
	if n := len(b.records(topic.Tasks("default", task.Standard))); n != 1 {
		t.Errorf("%d records under one key", n)
	}
}

func TestSubmitsGoOnWithRedisDown(t *testing.T) {
	b := setup(t)
	b.redis.Close()
	first := b.accepted(b.post("/v1/inference", hello, "Idempotency-Key", "k-1"))
	again := b.accepted(b.post("/v1/inference", hello, "Idempotency-Key", "k-1"))
	if first.TaskID != again.TaskID {
		t.Errorf("ids %s and %s for one key", first.TaskID, again.TaskID)
	}
	plain := b.accepted(b.post("/v1/inference", hello))
	if plain.TaskID == first.TaskID {
		t.Error("a submit without a key got a keyed id")
	}
	if w := b.post("/v1/tasks/"+string(plain.TaskID)+"/cancel", ""); w.status != http.StatusAccepted {
		t.Errorf("cancel got %d %s", w.status, w.body)
	}
	ends := b.records(topic.Results)
	if len(ends) != 1 || ends[0].Partition != topic.ResultsPartition(plain.TaskID, 12) {
		t.Fatalf("%d terminals", len(ends))
	}
	b.valid("terminal", ends[0].Value)
	if end, err := wire.DecodeTerminal(tasktopic.FromKgo(ends[0])); err != nil || end.Status != task.Cancelled || end.Generation != nil {
		t.Errorf("%+v %v", end, err)
	}
}

func TestAHungRedisCostsOneSubmitItsTimeout(t *testing.T) {
	hung, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the kernel, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer hung.Close()
	b := setup(t, func(c *producer.Config, _ *producer.Deps) {
		c.Redis.URL = config.Secret("redis://" + hung.Addr().String())
	})
	began := time.Now()
	first := b.accepted(b.post("/v1/inference", hello, "Idempotency-Key", "k-1"))
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the first submit took %s", took)
	}
	began = time.Now()
	for range 20 {
		if again := b.accepted(b.post("/v1/inference", hello, "Idempotency-Key", "k-1")); again != first {
			t.Errorf("%+v, then %+v", first, again)
		}
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("20 more took %s: they waited for a Redis that is known to hang", took)
	}
}

func TestSettingsHaveOneName(t *testing.T) {
	t.Parallel()
	env := map[string]string{
		"PENSTOCK_ID_SECRET": "a secret of our own", "PENSTOCK_ID_SECRET_RETIRED": "3:the secret before it", "PENSTOCK_LISTEN": "127.0.0.1:1",
		"PENSTOCK_KAFKA_BROKERS": "a:1,b:2", "PENSTOCK_MAX_TASK_AGE": "1h", "PENSTOCK_IN_FLIGHT_BYTES": "1MiB", "PENSTOCK_KEY_QUEUE_LIMIT": "7",
	}
	var help bytes.Buffer
	proc := lifecycle.Proc{Args: []string{"--tasks-per-second", "2.5"}, Getenv: func(k string) string { return env[k] }, Stdout: &help}
	c, err := producer.ParseConfig(proc)
	if err != nil {
		t.Fatal(err)
	}
	if c.ID.Reveal() != "a secret of our own" || len(c.Retired) != 1 || c.Listen != "127.0.0.1:1" || len(c.Kafka.Brokers) != 2 ||
		c.MaxTaskAge != time.Hour || c.InFlightBytes != 1<<20 || c.TasksPerSecond != 2.5 || c.KeyQueueLimit != 7 {
		t.Errorf("%+v", c)
	}
	proc.Args = []string{"--help"}
	if _, err := producer.ParseConfig(proc); !errors.Is(err, flag.ErrHelp) || !strings.Contains(help.String(), "--auth-keys-file") || strings.Contains(help.String(), "secret of our own") {
		t.Errorf("%v\n%s", err, help.String())
	}
}

func TestAHundredIdenticalSubmitsAreOneTask(t *testing.T) {
	b := setup(t)
	var wg sync.WaitGroup
	ids := make([]task.ID, 100)
	for i := range ids {
		wg.Go(func() {
			var out struct{ Data api.Accepted }
			a := b.post("/v1/inference", hello, "Idempotency-Key", "k-1")
			if err := json.Unmarshal(a.body, &out); err != nil || a.status != http.StatusAccepted {
				t.Errorf("%d %s", a.status, a.body)
			}
			ids[i] = out.Data.TaskID
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("ids %s and %s", id, ids[0])
		}
	}
	if n := len(b.records(topic.Tasks("default", task.Standard))); n != 1 {
		t.Errorf("%d records", n)
	}
}

func TestARefusedProduceIs503(t *testing.T) {
	b := setup(t)
	fault := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.TopicAuthorizationFailed, Count: -1})
	a := b.post("/v1/inference", hello)
	if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || !bytes.Contains(a.body, []byte("same Idempotency-Key")) {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	fault.Remove()
	b.accepted(b.post("/v1/inference", hello))
}

func TestAFullBufferIs503AtOnce(t *testing.T) {
	b := setup(t, func(c *producer.Config, _ *producer.Deps) { c.BufferBytes = 1 << 20 })
	b.accepted(b.post("/v1/inference", hello)) // the client knows the topic now
	fault := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: -1})
	var wg sync.WaitGroup
	wg.Go(func() {
		if a := b.post("/v1/inference", `{"model":"sim-chat","payload":{"text":"`+strings.Repeat("x", 900<<10)+`"}}`); a.status != http.StatusAccepted {
			t.Errorf("the first record got %d %s", a.status, a.body)
		}
	})
	eventually(t, "the first record is on its way", func() bool { return fault.Hits() > 0 })
	began := time.Now()
	full := b.post("/v1/inference", `{"model":"sim-chat","payload":{"text":"`+strings.Repeat("y", 400<<10)+`"}}`)
	if took := time.Since(began); full.status != http.StatusServiceUnavailable || took > time.Second {
		t.Errorf("got %d after %s", full.status, took)
	}
	if full.header.Get("Retry-After") != "1" || !bytes.Contains(full.body, []byte("nothing was accepted")) {
		t.Errorf("%v %s", full.header, full.body)
	}
	fault.Remove()
	wg.Wait()
}

func TestOpenRefusesWhatIsUnsafe(t *testing.T) {
	b := setup(t)
	for _, tc := range []struct {
		want   string
		change func(*producer.Config, *producer.Deps)
	}{
		{"only a loopback address is allowed", func(c *producer.Config, _ *producer.Deps) { c.Listen, c.ID = "0.0.0.0:0", "a secret of our own" }},
		{"development secret is public", func(c *producer.Config, d *producer.Deps) { c.Listen, d.Auth = "0.0.0.0:0", keys{} }},
		{"partitions", func(c *producer.Config, _ *producer.Deps) { c.Partitions = 24 }},
		{"catalog", func(_ *producer.Config, d *producer.Deps) { d.Catalog = nil }},
		{"rules", func(c *producer.Config, _ *producer.Deps) { c.Rules = "/nowhere.yaml" }},
		{"redis url", func(c *producer.Config, _ *producer.Deps) { c.Redis.URL = "http://x" }},
	} {
		t.Run(tc.want, func(t *testing.T) {
			cfg, deps := b.config()
			tc.change(&cfg, &deps)
			s, err := producer.Open(t.Context(), cfg, deps)
			if err == nil || !strings.Contains(err.Error(), tc.want) || s != nil {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestConfigFaultsComeAtOnce(t *testing.T) {
	t.Parallel()
	c := producer.DefaultConfig()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	c.MaxTaskAge, c.BufferBytes, c.Partitions, c.ResultTTL, c.TasksPerSecond, c.Listen = 40*time.Hour, 1, 0, 0, -1, "x"
	c.KeyQueueLimit, c.HangUpGrace = 10_001, time.Hour
	err := c.Validate()
	for _, want := range []string{"max_task_age", "buffer_bytes", "partitions", "result_ttl", "tasks_per_second", "key_queue_limit", "hang_up_grace", "listen"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

func TestClosingTwiceIsHarmless(t *testing.T) {
	b := setup(t)
	cfg, deps := b.config()
	s, err := producer.Open(t.Context(), cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(t.Context()), s.Close(t.Context())); err != nil {
		t.Error(err)
	}
}

// eventually polls: the thing waited for happens on another goroutine.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for tick := time.NewTicker(10 * time.Millisecond); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			tick.Stop()
			t.Fatalf("%s: not within 15 s", what)
		}
	}
}
