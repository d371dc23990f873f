package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/internal/callback"
	"github.com/penstock/penstock/internal/catalog"
	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/seats"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/internal/ticket"
	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/producer/cancel"
	"github.com/penstock/penstock/producer/httpapi"
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

// world stands for Kafka, Redis and the results tail at once.
type world struct {
	mu     sync.Mutex
	tasks  []*task.Task
	ends   []*terminal.Terminal
	err    error // of every produce
	known  map[task.ID]bool
	prints map[string][2]string
	winner *terminal.Terminal // answers every wait at once
	waits  int

	told       []*webhook.Record // on penstock.webhooks, of batches
	hooksShown bool              // what became of them

	results results
	judge   judge

	tale    []event.Event // what is told of a watched task
	taleErr error         // after it; nil: nothing more comes
	repeats *calls
	shelf   *shelf
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

func (w *world) Fingerprint(_ context.Context, tenant, key, hash string, id task.ID) (string, task.ID, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	first, ok := w.prints[tenant+" "+key]
	if !ok {
		w.prints[tenant+" "+key] = [2]string{hash, string(id)}
	}
	return first[0], task.ID(first[1]), nil
}

func (w *world) BatchWebhook(_ context.Context, id string) (webhook.Log, bool, error) {
	l := webhook.Log{BatchID: id, Deliveries: []webhook.Delivery{}}
	if w.hooksShown {
		l.Deliveries = append(l.Deliveries, webhook.Delivery{ID: webhook.EventID(id, 0), State: webhook.Delivered})
	}
	return l, w.hooksShown, nil
}

func (w *world) Known(_ context.Context, ids []task.ID) ([]bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]bool, len(ids))
	for i, id := range ids {
		out[i] = w.known[id]
	}
	return out, nil
}

func (w *world) Queued(_ context.Context, hints []ingest.Hint) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range hints {
		w.known[h.ID] = true
	}
	return nil
}

// view is the Store of the cancel desk: it knows no task.
type view struct{}

func (view) Task(context.Context, task.ID) (api.Task, bool, error) { return api.Task{}, false, nil }

func (view) SignalCancel(context.Context, task.ID) error { return nil }

// results is an httpapi.Results that counts what is held of it.
type results struct {
	outputs map[string]*task.Output // by key; the others cannot be read now
	held    int
}

func (r *results) Task(_ context.Context, v api.Task) (api.Task, func(), error) {
	if v.OutputRef == nil {
		return v, func() {}, nil
	}
	output, ok := r.outputs[v.OutputRef.Key]
	if !ok {
		return api.Task{}, nil, blob.ErrUnavailable
	}
	r.held++
	v.Output, v.OutputRef = output, nil
	return v, func() { r.held-- }, nil
}

func (r *results) Event(_ context.Context, e eventlog.Entry) (eventlog.Entry, func(), error) {
	if strings.Contains(string(e.Data), `"output_ref"`) {
		return e, nil, blob.ErrUnavailable
	}
	return e, func() {}, nil
}

func (w *world) Wait(ctx context.Context, id task.ID) (*terminal.Terminal, uint8, error) {
	w.waits++
	if w.winner != nil {
		won := *w.winner
		won.TaskID = id
		return &won, 0, nil
	}
	<-ctx.Done()
	return nil, 0, ctx.Err()
}

type backlog struct{}

func (backlog) Over() bool { return false }

type bundle struct {
	*world
	handler http.Handler
	minter  *task.Minter
	drain   context.CancelFunc
	blobs   string // where files lie
}

func setup(tb testing.TB, limits admit.Params) *bundle {
	tb.Helper()
	return setupOver(tb, limits, tb.TempDir())
}

// setupOver is setup with files in a directory; with none there are none.
func setupOver(tb testing.TB, limits admit.Params, blobs string) *bundle {
	tb.Helper()
	return setupAs(tb, limits, blobs, 20*time.Millisecond)
}

// setupAs is setupOver with the grace that is given to who hung up.
func setupAs(tb testing.TB, limits admit.Params, blobs string, grace time.Duration, change ...func(*httpapi.Deps)) *bundle {
	tb.Helper()
	minter, err := task.NewMinter(task.Secret{Number: 1, Key: []byte("0123456789abcdef")})
	if err != nil {
		tb.Fatal(err)
	}
	models := &catalog.Catalog{Models: []catalog.Model{
		{ID: "sim-chat", Pool: "default", Kinds: []task.Kind{task.Chat, task.Completion}, Created: 1, OwnedBy: "penstock"},
		{ID: "org/sim-embed", Pool: "embed", Kinds: []task.Kind{task.Embedding}, Created: 2, OwnedBy: "penstock"},
	}}
	reg := prometheus.NewRegistry()
	router, err := rules.Compile(rules.CatchAll("sim-chat"), func(string) bool { return true }, reg)
	if err != nil {
		tb.Fatal(err)
	}
	w := &world{known: map[task.ID]bool{}, prints: map[string][2]string{}, repeats: &calls{}}
	w.shelf = &shelf{w: w, open: task.Queued}
	log := slog.New(slog.DiscardHandler)
	metrics, admission := ingest.NewMetrics(reg), admit.New(limits, reg)
	intake := ingest.New(ingest.Deps{
		Minter: minter, Catalog: models, Router: router, Admission: admission, Backlog: backlog{}, Publisher: w, Memory: w,
		Hints: ingest.NewHints(w, metrics, log), Metrics: metrics, Log: log, Claims: claimcheck.New(nil, claimcheck.Params{}),
	}, ingest.Params{MaxAge: 36 * time.Hour})
	desk := cancel.New(minter, w, view{}, w, cancel.Params{
		Wait: 10 * time.Millisecond,
		Gone: func(id task.ID, now time.Time) bool { return now.Sub(id.Time()) > 60*time.Hour },
	}, log)
	drain, stop := context.WithCancel(context.Background())
	tb.Cleanup(stop)
	deps := httpapi.Deps{
		Intake: intake, Metrics: metrics, Limits: admission, Cancels: desk, Waiter: w, Results: &w.results, Catalog: models, Auth: tenants{}, Schemas: spec.FS, Drain: drain,
		WatchFunc: w.watch, Repeats: w.repeats, Seats: seats.New(seats.Params{All: 10, PerTenant: 10}), Registry: reg, Log: log,
		Responses: w.shelf.desk(minter, desk), NewestFunc: w.shelf.Newest, DrainSpread: time.Millisecond,
		Bulk: openDesk(tb, w, blobs), MaxFile: maxTestFile,
		Grace: grace, Heartbeat: 20 * time.Millisecond,
		Hooks:   w,
		Filter:  &w.judge,
		Secrets: callback.NewKeys(task.Secret{Key: []byte("0123456789abcdef")}),
		IDs:     minter, Tickets: ticket.NewSigner(task.Secret{Number: 1, Key: []byte("0123456789abcdef")}),
	}
	for _, f := range change {
		f(&deps)
	}
	routes, err := httpapi.New(deps)
	if err != nil {
		tb.Fatal(err)
	}
	server := httpserver.New(httpserver.DefaultConfig(), log, reg)
	routes.Register(server.Echo())
	return &bundle{world: w, handler: server.Echo(), minter: minter, drain: stop, blobs: blobs}
}

// tenants lets in every token as its tenant, and none as nobody.
type tenants struct{}

func (tenants) Authenticate(_ context.Context, bearer string) (auth.Principal, error) {
	tenant, scope, _ := strings.Cut(bearer, ":")
	if tenant == "" {
		return auth.Principal{}, auth.ErrUnauthenticated
	}
	if scope == "" {
		scope = auth.ScopeAll
	}
	return auth.Principal{Tenant: tenant, Scopes: []string{scope}}, nil
}

// call sends a request as tenant acme, with headers given as name, value, ….
func (b *bundle) call(method, target string, body io.Reader, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, body)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer acme")
	r.Header.Set("X-Request-Id", "req-1")
	for i := 0; i < len(headers); i += 2 {
		if r.Header.Set(headers[i], headers[i+1]); headers[i+1] == "" {
			r.Header.Del(headers[i])
		}
	}
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	return w
}

func (b *bundle) post(target, body string, headers ...string) *httptest.ResponseRecorder {
	return b.call(http.MethodPost, target, strings.NewReader(body), headers...)
}

// dataOf decodes the data of a native envelope.
func dataOf[T any](tb testing.TB, w *httptest.ResponseRecorder) T {
	tb.Helper()
	var envelope api.Envelope
	var data T
	err := json.Unmarshal(w.Body.Bytes(), &envelope)
	if err = errors.Join(err, json.Unmarshal(envelope.Data, &data)); err != nil {
		tb.Fatalf("%v in %s", err, w.Body)
	}
	return data
}
