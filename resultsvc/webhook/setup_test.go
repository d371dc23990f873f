package webhook_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/goleak"

	"github.com/penstock/penstock/internal/callback"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	courier "github.com/penstock/penstock/resultsvc/webhook"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const partitions = 2

// bundle is a cluster, a receiver of webhooks, and what publishes.
type bundle struct {
	t        *testing.T
	cluster  *kfake.Cluster
	network  *kfake.VirtualNetwork // nil: the real one
	kafka    kafkaclient.Config
	pub      *tasktopic.Publisher
	minter   *task.Minter
	keys     *callback.Keys
	logs     *logs
	to       *receiver
	url      string
	patience time.Duration
	closers  []func() // run backwards
}

// inBubble runs a test in fake time, on a network inside the process.
func inBubble(t *testing.T, f func(b *bundle)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bundle{t: t, network: &kfake.VirtualNetwork{}, url: "http://localhost/hook", patience: 3 * time.Hour}
		defer b.close()
		ln, err := b.network.Listen("tcp", "localhost:80")
		if err != nil {
			t.Fatal(err)
		}
		b.open(ln, kfake.Ports(9092), kfake.ListenFn(b.network.Listen), kfake.SleepOutOfOrder())
		f(b)
	})
}

// inRealTime runs a test on the machine's own network and clock.
func inRealTime(t *testing.T, f func(b *bundle)) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &bundle{t: t, url: "http://" + ln.Addr().String() + "/hook", patience: 30 * time.Second}
	defer b.close()
	b.open(ln)
	f(b)
}

func (b *bundle) open(ln net.Listener, opts ...kfake.Opt) {
	b.t.Helper()
	var err error
	if b.cluster, err = kfake.NewCluster(append(opts, kfake.NumBrokers(1))...); err != nil {
		b.t.Fatal(err)
	}
	b.closers = append(b.closers, b.cluster.Close)
	b.kafka = kafkaclient.Config{Brokers: b.cluster.ListenAddrs(), ClientID: "test"}
	if b.network != nil {
		b.kafka.Dial = func(ctx context.Context, n, host string) (net.Conn, error) {
			return b.network.DialContext(ctx, n, host)
		}
	}
	plan, err := topic.Plan(topic.Params{Replication: 1, Partitions: partitions})
	if err != nil {
		b.t.Fatal(err)
	}
	for _, tp := range plan {
		if err := b.cluster.CreateTopic(tp.Name, tp.Partitions, nil); err != nil {
			b.t.Fatal(err)
		}
	}
	writer, err := kafkaclient.New(b.kafka, quiet(), kafkaclient.ProducerOpts(1<<20)...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.closers = append(b.closers, writer.Close)
	b.pub = tasktopic.NewPublisher(writer, tasktopic.Params{ResultsPartitions: partitions})
	secret := task.Secret{Key: []byte("0123456789abcdef")}
	if b.minter, err = task.NewMinter(secret); err != nil {
		b.t.Fatal(err)
	}
	b.keys, b.logs = callback.NewKeys(secret), newLogs()
	b.serve(ln)
}

func (b *bundle) close() {
	for _, c := range slices.Backward(b.closers) {
		c()
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// serve starts the receiver. It takes everything unless a test says otherwise.
func (b *bundle) serve(ln net.Listener) {
	verifier, err := callback.NewVerifier(b.keys.Secret("acme"))
	if err != nil {
		b.t.Fatal(err)
	}
	b.to = &receiver{t: b.t, verifier: verifier, answer: func(int, heard) int { return http.StatusOK }}
	srv := &http.Server{Handler: b.to}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(ln) })
	b.closers = append(b.closers, func() { _ = srv.Close(); wg.Wait() })
}

// heard is one call as the receiver saw it.
type heard struct {
	id    string
	at    time.Time
	event webhook.Event
	body  string
}

type receiver struct {
	t        *testing.T
	verifier *callback.Verifier

	mu         sync.Mutex
	answer     func(n int, h heard) int // to the n-th call of an event, from 1; 0: hang up
	retryAfter string                   // of each answer
	calls      []heard
}

// ServeHTTP implements http.Handler.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	if err := r.verifier.Verify(req.Header, body); err != nil {
		r.t.Errorf("a call that nobody should believe: %v", err)
	}
	h := heard{id: req.Header.Get("webhook-id"), at: time.Now(), body: string(body)}
	if err := json.Unmarshal(body, &h.event); err != nil || h.event.ID != h.id {
		r.t.Errorf("the event %s has the id %s, %v", body, h.id, err)
	}
	r.mu.Lock()
	r.calls = append(r.calls, h)
	n := 0
	for _, c := range r.calls {
		if c.id == h.id {
			n++
		}
	}
	answer := r.answer
	if r.retryAfter != "" {
		w.Header().Set("Retry-After", r.retryAfter)
	}
	r.mu.Unlock()
	status := answer(n, h)
	if status == 0 {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(status)
}

func (r *receiver) answers(f func(n int, h heard) int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = f
}

// of returns the calls about a task or a batch, in order.
func (r *receiver) of(id task.ID) []heard {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []heard
	for _, c := range r.calls {
		if c.event.Data.ID == id {
			out = append(out, c)
		}
	}
	return out
}

// ids are the different events about a task.
func (r *receiver) ids(id task.ID) []string {
	seen := map[string]bool{}
	for _, c := range r.of(id) {
		seen[c.id] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// logs is what Redis would hold.
type logs struct {
	mu       sync.Mutex
	away     bool
	views    map[task.ID]taskstore.WebhookLog
	restored map[int32]bool
}

func newLogs() *logs {
	return &logs{views: map[task.ID]taskstore.WebhookLog{}, restored: map[int32]bool{}}
}

var errAway = errors.New("redis is away")

func (l *logs) PutWebhooks(_ context.Context, all []taskstore.WebhookLog) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.away {
		return errAway
	}
	for _, one := range all {
		if id := task.ID(one.Subject()); one.Offset >= l.views[id].Offset {
			l.views[id] = one
		}
	}
	return nil
}

func (l *logs) WebhooksLost(_ context.Context, all []int32) (lost []int32, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.away {
		return nil, errAway
	}
	for _, p := range all {
		if !l.restored[p] {
			lost = append(lost, p)
		}
	}
	return lost, nil
}

func (l *logs) WebhooksRestored(_ context.Context, p int32) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.restored[p] = true
	return nil
}

func (l *logs) lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.views)
	clear(l.restored)
}

func (l *logs) goAway(away bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.away = away
}

func (l *logs) of(id task.ID) []webhook.Delivery {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.views[id].Deliveries
}

// member is one running courier.
type member struct {
	reg  *prometheus.Registry
	stop func()
}

// start runs a courier until it is stopped, or the test ends.
func (b *bundle) start(change func(*courier.Deps, *courier.Params)) *member {
	b.t.Helper()
	m := &member{reg: prometheus.NewRegistry()}
	d := courier.Deps{Publisher: b.pub, Logs: b.logs, Keys: b.keys, Kafka: b.kafka, Log: quiet(), Registry: m.reg}
	p := courier.Params{Policy: callback.Policy{AllowPrivate: true}}
	if b.network != nil {
		p.Dial = b.network.DialContext
	}
	if change != nil {
		change(&d, &p)
	}
	c := courier.New(d, p)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.Run(ctx); err != nil {
			b.t.Error(err)
		}
	})
	m.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	b.closers = append(b.closers, m.stop)
	return m
}

// hook is a webhook at the receiver.
func (b *bundle) hook(events ...string) *task.Webhook {
	return &task.Webhook{URL: b.url, Events: events}
}

// register gives a task its webhook, as a submit does before it publishes the
// task.
func (b *bundle) register(id task.ID, w *task.Webhook) {
	b.t.Helper()
	_, err := b.pub.Webhook(b.t.Context(), &webhook.Record{
		SchemaVersion: task.SchemaVersion, Step: webhook.Registered, TaskID: id, Tenant: "acme", At: time.Now().UTC(), Webhook: w,
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// announce tells of a batch that has ended, as whoever ran it does.
func (b *bundle) announce(id string, w *task.Webhook) {
	b.t.Helper()
	body, err := webhook.BatchBody(webhook.BatchData{ID: id, Status: "completed"}, time.Now())
	if err != nil {
		b.t.Fatal(err)
	}
	_, err = b.pub.Webhook(b.t.Context(), &webhook.Record{
		SchemaVersion: task.SchemaVersion, Step: webhook.Announced, BatchID: id, Tenant: "acme", At: time.Now().UTC(), Webhook: w, Event: body,
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// submit registers a webhook for a new task.
func (b *bundle) submit(w *task.Webhook) task.ID {
	b.t.Helper()
	id := b.minter.New("acme", time.Now().Add(time.Millisecond))
	b.register(id, w)
	return id
}

// end publishes a terminal of a generation; -1: of whichever is open.
func (b *bundle) end(id task.ID, s task.Status, generation int) {
	b.t.Helper()
	now := time.Now().UTC()
	t := &terminal.Terminal{SchemaVersion: task.SchemaVersion, TaskID: id, Status: s, Tenant: "acme", Model: "sim-chat", CreatedAt: now, EndedAt: now}
	if generation >= 0 {
		g := uint8(generation)
		t.Generation = &g
	}
	switch s {
	case task.Succeeded:
		t.Output = &task.Output{Text: "hello", FinishReason: "stop"}
	case terminal.Reopened:
		t.RedriveJob = "job-1"
	}
	if _, err := b.pub.Terminal(b.t.Context(), t); err != nil {
		b.t.Fatal(err)
	}
}

// await returns once a condition holds.
func (b *bundle) await(what string, holds func() bool) {
	b.t.Helper()
	tick := 10 * time.Millisecond
	for limit := time.Now().Add(b.patience); !holds(); {
		if time.Now().After(limit) {
			b.t.Fatalf("it never came to hold: %s", what)
		}
		<-time.After(tick)
		tick = min(2*tick, time.Second)
	}
}

// settled awaits that so many deliveries of a task are over, and returns all.
func (b *bundle) settled(id task.ID, n int) []webhook.Delivery {
	b.t.Helper()
	over := func() int {
		count := 0
		for _, d := range b.logs.of(id) {
			if d.State != webhook.Pending {
				count++
			}
		}
		return count
	}
	b.await("the webhook is settled", func() bool { return over() >= n })
	return b.logs.of(id)
}
