package grpcapi_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/catalog"
	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/rpc"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/producer/cancel"
	"github.com/penstock/penstock/producer/grpcapi"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/producer/rules"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/spec"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world stands for Kafka: it keeps what is published.
type world struct {
	mu    sync.Mutex
	tasks []*task.Task
	ends  []*terminal.Terminal
	err   error // of every produce
}

func (w *world) Task(_ context.Context, t *task.Task, _ string, _ task.Progress) (tasktopic.Ack, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.tasks = append(w.tasks, t)
	}
	return tasktopic.Ack{}, w.err
}

func (w *world) TaskAsync(ctx context.Context, t *task.Task, pool string, p task.Progress, done func(tasktopic.Ack, error)) {
	done(w.Task(ctx, t, pool, p))
}

func (w *world) Terminal(_ context.Context, t *terminal.Terminal) (tasktopic.Ack, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ends = append(w.ends, t)
	return tasktopic.Ack{}, w.err
}

func (w *world) WebhookAsync(_ *webhook.Record, done func(tasktopic.Ack, error)) {
	w.mu.Lock()
	err := w.err
	w.mu.Unlock()
	done(tasktopic.Ack{}, err)
}

func (w *world) BrokerNow() time.Time { return time.Now() }

func (w *world) published() []*task.Task {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*task.Task(nil), w.tasks...)
}

// forgetful is a memory that knows no key and no task.
type forgetful struct{}

func (forgetful) Fingerprint(context.Context, string, string, string, task.ID) (string, task.ID, error) {
	return "", "", errors.New("redis is away")
}

func (forgetful) Known(context.Context, []task.ID) ([]bool, error) {
	return nil, errors.New("redis is away")
}

func (forgetful) Queued(context.Context, []ingest.Hint) error { return nil }

// view is a cancel desk's store over the projection.
type view struct{ *taskstore.Store }

func (v view) Task(ctx context.Context, id task.ID) (api.Task, bool, error) {
	found, err := v.Get(ctx, id)
	return found.View, found.Known, err
}

type backlog struct{}

func (backlog) Over() bool { return false }

// keys lets in every token as its tenant, "acme:read" with one scope only, and
// none as nobody.
type keys struct {
	mu      sync.Mutex
	revoked bool
}

func (k *keys) Authenticate(_ context.Context, bearer string) (auth.Principal, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	tenant, scope, _ := strings.Cut(bearer, ":")
	if tenant == "panic" {
		panic("an authenticator that is broken")
	}
	if tenant == "" || k.revoked {
		return auth.Principal{}, auth.ErrUnauthenticated
	}
	if scope == "" {
		scope = auth.ScopeAll
	}
	return auth.Principal{Tenant: tenant, Scopes: []string{scope}}, nil
}

func (k *keys) revoke() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.revoked = true
}

// bundle is a server on a pipe, over a Redis in this process.
type bundle struct {
	*world
	t      *testing.T
	redis  *miniredis.Miniredis
	store  *taskstore.Store
	log    *eventlog.Log
	minter *task.Minter
	keys   *keys
	reg    *prometheus.Registry
	server *grpcapi.Server
	served chan error // the result of Serve
	conn   *grpc.ClientConn
	tasks  rpc.InferenceClient
	router rpc.MessageRouterClient

	mu   sync.Mutex
	next int64 // offset in the only results partition
}

func setup(t *testing.T, p grpcapi.Params, limits admit.Params, change ...func(*grpcapi.Deps)) *bundle {
	t.Helper()
	b := &bundle{t: t, world: &world{}, redis: miniredis.RunT(t), keys: &keys{}, reg: prometheus.NewRegistry(), served: make(chan error, 1)}
	rdb := redis.NewClient(&redis.Options{Addr: b.redis.Addr(), MaxRetries: -1})
	t.Cleanup(func() { _ = rdb.Close() })
	b.store = taskstore.New(rdb, taskstore.Params{Partitions: 1})
	b.log = eventlog.New(rdb, eventlog.Params{Partitions: 1})
	if err := b.store.Rebuild(t.Context(), 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	follower := follow.New(b.store, b.log, follow.Params{})
	d := b.deps(follower, limits)
	for _, c := range change {
		c(&d)
	}
	var err error
	if b.server, err = grpcapi.New(d, p); err != nil {
		t.Fatal(err)
	}
	pipe := bufconn.Listen(1 << 16)
	b.server.Use(pipe)
	running, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = follower.Run(running) })
	wg.Go(func() { b.served <- b.server.Serve(running) })
	b.dial(pipe)
	t.Cleanup(func() { _ = b.conn.Close(); stop(); wg.Wait() })
	return b
}

func (b *bundle) dial(pipe *bufconn.Listener) {
	b.t.Helper()
	conn, err := grpc.NewClient("passthrough:pipe", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return pipe.DialContext(ctx) }))
	if err != nil {
		b.t.Fatal(err)
	}
	b.conn, b.tasks, b.router = conn, rpc.NewInferenceClient(conn), rpc.NewMessageRouterClient(conn)
}

func (b *bundle) deps(follower *follow.Follower, limits admit.Params) grpcapi.Deps {
	b.t.Helper()
	minter, err := task.NewMinter(task.Secret{Number: 1, Key: []byte("0123456789abcdef")})
	if err != nil {
		b.t.Fatal(err)
	}
	b.minter = minter
	models := &catalog.Catalog{Models: []catalog.Model{
		{ID: "sim-chat", Pool: "default", Kinds: []task.Kind{task.Chat, task.Completion}},
		{ID: "sim-embed", Pool: "embed", Kinds: []task.Kind{task.Embedding}},
	}}
	router, err := rules.Compile(rules.CatchAll("sim-chat"), func(string) bool { return true }, b.reg)
	if err != nil {
		b.t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	metrics, admission := ingest.NewMetrics(b.reg), admit.New(limits, b.reg)
	claims := claimcheck.New(nil, claimcheck.Params{})
	return grpcapi.Deps{
		Intake: ingest.New(ingest.Deps{
			Minter: minter, Catalog: models, Router: router, Admission: admission, Backlog: backlog{}, Publisher: b.world, Memory: forgetful{},
			Hints: ingest.NewHints(forgetful{}, metrics, log), Metrics: metrics, Log: log, Claims: claims,
		}, ingest.Params{MaxAge: 36 * time.Hour}),
		Metrics: metrics, Limits: admission,
		Cancels: cancel.New(minter, b.world, view{b.store}, follower, cancel.Params{
			Wait: 10 * time.Millisecond,
			Gone: func(id task.ID, now time.Time) bool { return now.Sub(id.Time()) > 60*time.Hour },
		}, log),
		Follower: follower, Store: b.store, Results: claims, IDs: minter, Auth: b.keys, Schemas: spec.FS, Log: log, Registry: b.reg,
	}
}

// as is a context of a caller, with metadata given as name, value, ….
func (b *bundle) as(key string, more ...string) context.Context {
	pairs := more
	if key != "" {
		pairs = append([]string{"authorization", "Bearer " + key}, more...)
	}
	return metadata.AppendToOutgoingContext(b.t.Context(), pairs...)
}

func (b *bundle) id() task.ID { return b.minter.New("acme", time.Now()) }

// end applies a terminal as the projector does.
func (b *bundle) end(id task.ID, s task.Status) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	generation := uint8(0)
	end := &terminal.Terminal{
		SchemaVersion: 1, TaskID: id, Status: s, Generation: &generation, Tenant: "acme", Model: "sim-chat",
		Output: &task.Output{Text: "all of it", FinishReason: "stop"}, CreatedAt: time.Now(), EndedAt: time.Now(),
		Usage: &task.Usage{PromptTokens: 1, CompletionTokens: 2, TotalTokens: 3},
	}
	if err := b.store.Apply(context.Background(), 0, b.next, b.next+1, []taskstore.Applied{{Terminal: end, Offset: b.next}}); err != nil {
		b.t.Error(err)
	}
	b.next++
}

// say claims a task for its first attempt, or goes on, with deltas of a fence.
func (b *bundle) say(id task.ID, f event.Fence, from, to uint64) {
	b.t.Helper()
	if from == 1 {
		if err := b.log.Claim(context.Background(), eventlog.Claim{ID: id, Fence: f, Attempt: 1}); err != nil {
			b.t.Error(err)
		}
	}
	a := eventlog.Append{ID: id}
	for seq := from; seq <= to; seq++ {
		a.Events = append(a.Events, event.Event{ID: event.ID{Fence: f, Seq: seq}, Type: event.Delta, TaskID: id, Text: fmt.Sprint(seq)})
	}
	if err := b.log.Append(context.Background(), []eventlog.Append{a})[0]; err != nil {
		b.t.Error(err)
	}
}

func fence(t *testing.T, group int32) event.Fence {
	t.Helper()
	f, err := event.NewFence(0, 0, group, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
