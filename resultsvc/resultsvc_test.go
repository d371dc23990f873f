package resultsvc_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/goleak"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/resultsvc"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const partitions = 3

type bundle struct {
	t      testing.TB
	cfg    resultsvc.Config
	base   string
	addr   string
	redis  *miniredis.Miniredis
	rdb    redis.UniversalClient
	store  *taskstore.Store
	events *eventlog.Log
	minter *task.Minter
	pub    *tasktopic.Publisher
	reg    *prometheus.Registry
	http   *http.Client
	drain  func() // begins the stop of the process, and waits for it
}

func setup(t testing.TB, change func(*resultsvc.Config)) *bundle {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, topic.Results))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	mr := miniredis.RunT(t)
	cfg := resultsvc.DefaultConfig()
	cfg.Listen, cfg.Partitions = "127.0.0.1:0", partitions
	cfg.Kafka.Brokers = cluster.ListenAddrs()
	cfg.Redis.URL = config.Secret("redis://" + mr.Addr())
	cfg.StreamDrain = 50 * time.Millisecond
	if change != nil {
		change(&cfg)
	}
	b := &bundle{t: t, cfg: cfg, redis: mr, reg: prometheus.NewRegistry(), http: &http.Client{Transport: &http.Transport{}}}
	if b.rdb, err = redisclient.New(cfg.Redis); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.rdb.Close() })
	if b.minter, err = cfg.IDConfig.Minter(cfg.Listen); err != nil {
		t.Fatal(err)
	}
	b.store = taskstore.New(b.rdb, taskstore.Params{Partitions: partitions})
	b.events = eventlog.New(b.rdb, eventlog.Params{Partitions: partitions})
	quiet := slog.New(slog.DiscardHandler)
	writer, err := kafkaclient.New(cfg.Kafka, quiet, kafkaclient.ProducerOpts(1<<22)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(writer.Close)
	b.pub = tasktopic.NewPublisher(writer, tasktopic.Params{ResultsPartitions: partitions})
	b.serve(cfg, quiet)
	return b
}

// another is a second replica on the same Kafka and Redis.
func (b *bundle) another() *bundle {
	b.t.Helper()
	other := *b
	other.reg = prometheus.NewRegistry()
	other.serve(b.cfg, slog.New(slog.DiscardHandler))
	return &other
}

// serve runs the service behind a real listener.
func (b *bundle) serve(cfg resultsvc.Config, log *slog.Logger) {
	b.t.Helper()
	s, err := resultsvc.Open(b.t.Context(), cfg, resultsvc.Deps{Log: log, Registry: b.reg})
	if err != nil {
		b.t.Fatal(err)
	}
	server := httpserver.New(cfg.HTTPConfig.Config, log, prometheus.NewRegistry())
	s.Register(server.Echo())
	server.OnDrain(s.Drain)
	if err := server.Listen(); err != nil {
		b.t.Fatal(err)
	}
	b.addr = server.Addr()
	b.base = "http://" + b.addr
	running, stop := context.WithCancel(context.Background())
	serving, end := context.WithCancel(context.Background())
	var runs, serves sync.WaitGroup
	runs.Go(func() {
		if err := s.Run(running); err != nil {
			b.t.Error(err)
		}
	})
	serves.Go(func() {
		if err := server.Serve(serving); err != nil {
			b.t.Error(err)
		}
	})
	b.drain = sync.OnceFunc(func() { end(); serves.Wait(); stop(); runs.Wait() })
	b.t.Cleanup(func() { b.http.CloseIdleConnections(); b.drain() })
}

func (b *bundle) id() task.ID { return b.minter.New("dev", time.Now()) }

func (b *bundle) ended(id task.ID, s task.Status, generation uint8) *terminal.Terminal {
	return &terminal.Terminal{
		SchemaVersion: 1, TaskID: id, Status: s, Generation: &generation, Tenant: "dev", Model: "sim-chat",
		Output: &task.Output{Text: "line one\r\nline <two>"}, CreatedAt: time.Now(), EndedAt: time.Now(),
	}
}

// end publishes a terminal on Kafka.
func (b *bundle) end(id task.ID, s task.Status, generation uint8) {
	b.t.Helper()
	if _, err := b.pub.Terminal(b.t.Context(), b.ended(id, s, generation)); err != nil {
		b.t.Fatal(err)
	}
}

// attempt writes the events of one attempt, deltas many.
func (b *bundle) attempt(id task.ID, n, deltas int) {
	b.t.Helper()
	f, err := event.NewFence(0, 0, int32(n), 0)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.events.Claim(b.t.Context(), eventlog.Claim{ID: id, Fence: f, Attempt: n}); err != nil {
		b.t.Fatal(err)
	}
	a := eventlog.Append{ID: id}
	for seq := 1; seq <= deltas; seq++ {
		a.Events = append(a.Events, event.Event{ID: event.ID{Fence: f, Seq: uint64(seq)}, Type: event.Delta, TaskID: id, Text: fmt.Sprint(n, "\n", seq)})
	}
	if deltas > 0 {
		if err := b.events.Append(b.t.Context(), []eventlog.Append{a})[0]; err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bundle) get(path string, header ...string) *http.Response {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, b.base+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := b.http.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

// read returns status and decoded envelope.
func (b *bundle) read(path string, data any) (int, api.Envelope) {
	b.t.Helper()
	res := b.get(path)
	var e api.Envelope
	if err := json.NewDecoder(res.Body).Decode(&e); err != nil {
		b.t.Fatalf("%s: %v", path, err)
	}
	if data != nil && res.StatusCode == http.StatusOK {
		if err := json.Unmarshal(e.Data, data); err != nil {
			b.t.Fatal(err)
		}
	}
	return res.StatusCode, e
}

// frame is one SSE frame.
type frame struct{ id, event, data string }

func (f frame) decoded(t *testing.T) event.Event {
	t.Helper()
	var e event.Event
	if err := json.Unmarshal([]byte(f.data), &e); err != nil {
		t.Fatalf("data %q: %v", f.data, err)
	}
	return e
}

// frames reads a stream to its end, or n frames.
func frames(t testing.TB, r io.Reader, n int) (out []frame, raw string) {
	t.Helper()
	lines := bufio.NewReader(r)
	var cur frame
	for n < 0 || len(out) < n {
		line, err := lines.ReadString('\n')
		raw += line
		if err == io.EOF {
			return out, raw
		}
		if err != nil {
			t.Fatalf("after %d frames: %v", len(out), err)
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "id":
			cur.id = value
		case "event":
			cur.event = value
		case "data":
			cur.data = value
		case "":
			if cur != (frame{}) && !strings.HasPrefix(line, ":") {
				out = append(out, cur)
			}
			if line == "\n" {
				cur = frame{}
			}
		}
	}
	return out, raw
}

// await polls until the task's result can be read.
func (b *bundle) await(ids ...task.ID) {
	b.t.Helper()
	for _, id := range ids {
		var v api.Task
		for range 20 {
			if _, _ = b.read("/v1/tasks/"+string(id)+"?wait=10", &v); v.Status.Terminal() {
				break
			}
		}
		if !v.Status.Terminal() {
			b.t.Fatalf("task %s is %s", id, v.Status)
		}
	}
}

func TestPoll(t *testing.T) {
	b := setup(t, nil)
	t.Run("an accepted task that nothing is known of is pending, and a long poll sees its end", func(t *testing.T) {
		id := b.id()
		b.await(b.settled(t)) // the projection is caught up
		var v api.Task
		if status, _ := b.read("/v1/tasks/"+string(id), &v); status != 200 || v.Status != task.Pending {
			t.Errorf("%d, %+v", status, v)
		}
		var wg sync.WaitGroup
		wg.Go(func() { b.read("/v1/tasks/"+string(id)+"?wait=20", &v) })
		b.end(id, task.Succeeded, 0)
		wg.Wait()
		if v.Status != task.Succeeded || v.Output.Text != "line one\r\nline <two>" || v.Attempts == nil {
			t.Errorf("%+v", v)
		}
	})
	t.Run("a long poll ends with what is known", func(t *testing.T) {
		var v api.Task
		if status, _ := b.read("/v1/tasks/"+string(b.id())+"?wait=1", &v); status != 200 || v.Status != task.Pending {
			t.Errorf("%d, %+v", status, v)
		}
	})
	t.Run("foreign, invented and malformed ids get the same 404", func(t *testing.T) {
		foreign := b.minter.New("other", time.Now())
		var bodies []string
		for _, id := range []string{string(foreign), "task_" + strings.Repeat("0", 48), "x", "..%2f"} {
			for _, path := range []string{"/v1/tasks/" + id, "/v1/tasks/" + id + "/events", "/v1/events?task=" + id} {
				status, e := b.read(path, nil)
				if status != 404 {
					t.Errorf("%s: %d", path, status)
				}
				bodies = append(bodies, fmt.Sprint(e.Code, e.Message, e.Error))
			}
		}
		for _, body := range bodies {
			if !strings.HasPrefix(body, "404no such task") {
				t.Errorf("answers differ: %q", body)
			}
		}
	})
	t.Run("bad queries are 400 and name the parameter", func(t *testing.T) {
		id := string(b.id())
		for path, param := range map[string]string{
			"/v1/tasks/" + id + "?wait=-1":           "wait",
			"/v1/tasks/" + id + "?wait=soon":         "wait",
			"/v1/tasks?limit=0":                      "limit",
			"/v1/tasks?limit=201":                    "limit",
			"/v1/tasks?status=done":                  "status",
			"/v1/tasks?after=zzz":                    "after",
			"/v1/tasks/" + id + "/events?after=1":    "after",
			"/v1/tasks/" + id + "/events?after=01-0": "after",
			"/v1/events":                             "task",
			"/v1/events?task=" + id + "&after=AAAA":  "after",
		} {
			status, e := b.read(path, nil)
			if status != 400 || e.Error == nil || e.Error.Param != param {
				t.Errorf("%s: %d %+v", path, status, e.Error)
			}
		}
	})
	t.Run("expired results are gone", func(t *testing.T) {
		id := b.settled(t)
		b.await(id)
		b.redis.Del(rediskey.Result(b.store.Partition(id), id))
		old := b.minter.New("dev", time.Now().Add(-100*time.Hour))
		for _, id := range []task.ID{id, old} {
			for _, path := range []string{"/v1/tasks/" + string(id), "/v1/tasks/" + string(id) + "?wait=5", "/v1/tasks/" + string(id) + "/events"} {
				if status, e := b.read(path, nil); status != 410 || e.Error.Type != "gone" {
					t.Errorf("%s: %d %+v", path, status, e.Error)
				}
			}
		}
	})
	t.Run("lists show the caller's own tasks", func(t *testing.T) {
		id := b.settled(t)
		b.await(id)
		var page api.TaskList
		status, _ := b.read("/v1/tasks?model=sim-chat&status=succeeded&limit=1", &page)
		if status != 200 || len(page.Tasks) != 1 || page.Tasks[0].TaskID != id || page.After == "" {
			t.Errorf("%d, %+v", status, page)
		}
	})
}

// settled is a task that has ended.
func (b *bundle) settled(t testing.TB) task.ID {
	t.Helper()
	id := b.id()
	b.end(id, task.Succeeded, 0)
	return id
}

func TestRedisAway(t *testing.T) {
	b := setup(t, nil)
	id := b.minter.New("dev", time.Now().Add(-time.Hour)) // older than the tail
	b.redis.Close()
	for _, path := range []string{"/v1/tasks/" + string(id), "/v1/tasks", "/v1/tasks/" + string(id) + "/events"} {
		res := b.get(path)
		if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d, Retry-After %q", path, res.StatusCode, res.Header.Get("Retry-After"))
		}
	}
	res := b.get("/v1/tasks/"+string(id)+"/events", "Last-Event-ID", "0-1")
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 || !strings.HasPrefix(string(body), "retry: ") || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("an EventSource that reconnects: %d %q, %v", res.StatusCode, body, err)
	}
	young := b.minter.New("dev", time.Now().Add(time.Hour))
	live := b.get("/v1/tasks/" + string(young) + "/events")
	if live.StatusCode != 200 {
		t.Fatalf("a task that the tail covers: %d", live.StatusCode)
	}
	b.end(young, task.Succeeded, 0)
	got, _ := frames(t, live.Body, -1)
	if len(got) != 2 || got[1].event != "succeeded" {
		t.Errorf("got %+v", got)
	}
}

func TestEventsOfOneTask(t *testing.T) {
	b := setup(t, nil)
	id := b.id()
	path := "/v1/tasks/" + string(id) + "/events"
	live := b.get(path)
	for name, want := range map[string]string{
		"Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no", "Content-Encoding": "",
	} {
		if got := live.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	b.attempt(id, 1, 3)
	b.attempt(id, 2, 2)
	b.end(id, task.Succeeded, 0)
	whole, _ := frames(t, live.Body, -1)
	var kinds []string
	for _, f := range whole {
		kinds = append(kinds, f.event)
		if e := f.decoded(t); e.ID.String() != f.id || string(e.Type) != f.event || e.TaskID != id {
			t.Errorf("frame %+v bears %+v", f, e)
		}
	}
	want := []string{"queued", "started", "delta", "delta", "delta", "restart", "delta", "delta", "succeeded"}
	if d := cmp.Diff(want, kinds); d != "" {
		t.Fatal(d)
	}
	if r := whole[len(whole)-1].decoded(t).Result; r == nil || r.Output.Text != "line one\r\nline <two>" {
		t.Errorf("the terminal bears %+v", r)
	}
	for i, f := range whole {
		for _, header := range []bool{true, false} {
			var res *http.Response
			if header {
				res = b.get(path+"?after=0-1", "Last-Event-ID", f.id)
			} else {
				res = b.get(path + "?after=" + f.id)
			}
			if i == len(whole)-1 {
				if res.StatusCode != 204 {
					t.Errorf("after the terminal: %d", res.StatusCode)
				}
				continue
			}
			rest, _ := frames(t, res.Body, -1)
			if d := cmp.Diff(whole[i+1:], rest, cmp.AllowUnexported(frame{})); d != "" {
				t.Errorf("resumed after frame %d: %s", i, d)
			}
		}
	}
}

func TestEventsOfManyTasks(t *testing.T) {
	b := setup(t, nil)
	query, ids := "", []task.ID{}
	for i := range 12 {
		id := b.id()
		ids = append(ids, id)
		query += "&task=" + string(id)
		if i%2 == 0 {
			b.attempt(id, 1, i%4)
		}
	}
	path := "/v1/events?" + query[1:]
	live := b.get(path)
	first, _ := frames(t, live.Body, len(ids)) // some of them only
	for i, id := range ids {
		if i%3 == 0 {
			b.attempt(id, 2, 2)
		}
		b.end(id, task.Succeeded, 0)
	}
	b.await(ids...)
	_ = live.Body.Close()
	rest, _ := frames(t, b.get(path, "Last-Event-ID", first[len(first)-1].id).Body, -1)
	want := perTask(t, append(first, rest...))
	whole, _ := frames(t, b.get(path).Body, -1)
	if d := cmp.Diff(perTask(t, whole), want); d != "" {
		t.Fatalf("a client that was cut has seen something else: %s", d)
	}
	for i, f := range whole {
		res := b.get(path+"&after=junk", "Last-Event-ID", f.id)
		if i == len(whole)-1 {
			if res.StatusCode != 204 {
				t.Errorf("after the last terminal: %d", res.StatusCode)
			}
			continue
		}
		rest, _ := frames(t, res.Body, -1)
		if d := cmp.Diff(want, perTask(t, append(append([]frame{}, whole[:i+1]...), rest...))); d != "" {
			t.Fatalf("resumed after frame %d: %s", i, d)
		}
	}
}

func TestAsManyTasksAsAllowedFitOneStream(t *testing.T) {
	b := setup(t, nil)
	query, ids := "", []task.ID{}
	for range api.MaxWatched {
		ids = append(ids, b.id())
		query += "&task=" + string(ids[len(ids)-1])
	}
	live := b.get("/v1/events?" + query[1:])
	got, _ := frames(t, live.Body, len(ids))
	_ = live.Body.Close()
	for i, id := range ids {
		if i%2 == 0 {
			b.attempt(id, 1, 1)
		}
	}
	live = b.get("/v1/events?"+query[1:], "Last-Event-ID", got[len(got)-1].id)
	more, _ := frames(t, live.Body, 2*len(ids)/2)
	if last := got[len(got)-1].id; len(last) > 8<<10 {
		t.Errorf("the cursor takes %d bytes", len(last))
	}
	for id, seen := range perTask(t, append(got, more...)) {
		if len(seen) != 1 && len(seen) != 3 {
			t.Fatalf("%s: %v", id, seen)
		}
	}
	if res := b.get("/v1/events?" + query[1:] + "&task=" + string(b.id())); res.StatusCode != 400 {
		t.Errorf("one task more: %d", res.StatusCode)
	}
}

// perTask is each task's events in the order they came.
func perTask(t *testing.T, all []frame) map[task.ID][]string {
	t.Helper()
	out := map[task.ID][]string{}
	for _, f := range all {
		e := f.decoded(t)
		out[e.TaskID] = append(out[e.TaskID], fmt.Sprintf("%s %s %q", e.ID, e.Type, e.Text))
	}
	return out
}

func TestAQuietStreamBeatsAndIsAskedToReconnectByADrain(t *testing.T) {
	b := setup(t, func(c *resultsvc.Config) { c.StreamHeartbeat = 20 * time.Millisecond })
	live := b.get("/v1/tasks/" + string(b.id()) + "/events")
	lines := bufio.NewReader(live.Body)
	for beats := 0; beats < 3; {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == ": ping\n" {
			beats++
		}
	}
	var wg sync.WaitGroup
	wg.Go(b.drain)
	rest, raw := frames(t, lines, -1)
	wg.Wait()
	if len(rest) != 1 || rest[0].event != "reconnect" || rest[0].id != "" || !strings.Contains(raw, "retry: ") {
		t.Errorf("the goodbye is %+v", rest)
	}
}

func TestAnOldStreamIsAskedToReconnect(t *testing.T) {
	b := setup(t, func(c *resultsvc.Config) { c.StreamLifetime = 100 * time.Millisecond })
	got, _ := frames(t, b.get("/v1/tasks/"+string(b.id())+"/events").Body, -1)
	if len(got) != 2 || got[1].event != "reconnect" || !strings.Contains(got[1].data, "lifetime") {
		t.Errorf("got %+v", got)
	}
}

func TestAClientThatDoesNotReadIsCut(t *testing.T) {
	b := setup(t, func(c *resultsvc.Config) { c.StreamWriteTimeout = 200 * time.Millisecond })
	id := b.id()
	conn, err := net.Dial("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	fmt.Fprintf(conn, "GET /v1/tasks/%s/events HTTP/1.1\r\nHost: x\r\n\r\n", id)
	head := make([]byte, 12)
	if _, err := io.ReadFull(conn, head); err != nil || string(head) != "HTTP/1.1 200" {
		t.Fatalf("%q, %v", head, err)
	}
	f, err := event.NewFence(0, 0, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.events.Claim(t.Context(), eventlog.Claim{ID: id, Fence: f, Attempt: 1}); err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("x", 256<<10)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for seq := uint64(1); ; seq++ {
		n := testutil.ToFloat64(gauge{b.reg, "penstock_resultsvc_streams_total", "cut"})
		if n == 1 {
			break
		}
		if seq > 400 {
			t.Fatal("the client was never cut")
		}
		if seq < 8 { // 2 MiB: a kernel that may hold more would take it all, for a client that is gone
			err := b.events.Append(t.Context(), []eventlog.Append{{ID: id, Events: []event.Event{{ID: event.ID{Fence: f, Seq: seq}, Type: event.Delta, TaskID: id, Text: text}}}})[0]
			if err != nil {
				t.Fatal(err)
			}
		}
		<-tick.C
	}
}

// gauge collects one labelled metric of a registry.
type gauge struct {
	reg         *prometheus.Registry
	name, label string
}

func (g gauge) Describe(c chan<- *prometheus.Desc) { prometheus.DescribeByCollect(g, c) }

func (g gauge) Collect(c chan<- prometheus.Metric) {
	families, _ := g.reg.Gather()
	value := 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == g.name && len(m.GetLabel()) == 1 && m.GetLabel()[0].GetValue() == g.label {
				value = m.GetCounter().GetValue()
			}
		}
	}
	c <- prometheus.MustNewConstMetric(prometheus.NewDesc("x", "x", nil, nil), prometheus.GaugeValue, value)
}

func TestStreamsAreCapped(t *testing.T) {
	b := setup(t, func(c *resultsvc.Config) { c.MaxTenantStreams = 2 })
	path := "/v1/tasks/" + string(b.id()) + "/events"
	for range 2 {
		if res := b.get(path); res.StatusCode != 200 {
			t.Fatalf("%d", res.StatusCode)
		}
	}
	if res := b.get(path); res.StatusCode != 429 || res.Header.Get("Retry-After") == "" {
		t.Errorf("%d", res.StatusCode)
	}
}

func TestALostRedisIsFilledBehindTheReaders(t *testing.T) {
	b := setup(t, nil)
	var ids []task.ID
	for range 20 {
		ids = append(ids, b.settled(t))
	}
	b.await(ids...)
	b.redis.FlushAll()
	for _, id := range ids {
		for {
			var v api.Task
			status, _ := b.read("/v1/tasks/"+string(id), &v)
			if status == 200 && v.Status == task.Succeeded {
				break
			}
			if status != 503 { // never pending, and never 404
				t.Fatalf("%s: %d %+v", id, status, v)
			}
		}
	}
}
