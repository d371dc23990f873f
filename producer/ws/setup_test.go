package ws_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/ticket"
	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/producer/cancel"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/producer/ws"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/spec"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world stands for what lies behind the sockets: who accepts, who stops, and a
// Redis that is a worker's and a projector's too.
type world struct {
	t       *testing.T
	minter  *task.Minter
	tickets *ticket.Signer
	rdb     *redis.Client
	store   *taskstore.Store
	log     *eventlog.Log

	mu       sync.Mutex
	accepted []ingest.Submission
	stopped  []task.ID
	err      error         // of every submit
	stopErr  error         // of every cancel
	hold     chan struct{} // submits and cancels wait for it, if it is not nil
	revoked  bool
	frozen   bool  // the projection does not answer
	waited   int   // questions that it did not answer
	next     int64 // offset in the only results partition
}

func newWorld(t *testing.T) *world {
	t.Helper()
	minter, err := task.NewMinter(task.Secret{Key: []byte("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr(), ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = rdb.Close() })
	w := &world{
		t: t, minter: minter, rdb: rdb, tickets: ticket.NewSigner(task.Secret{Key: []byte("0123456789abcdef")}),
		store: taskstore.New(rdb, taskstore.Params{Partitions: 1, TTL: time.Hour, MaxAge: time.Hour}),
		log:   eventlog.New(rdb, eventlog.Params{Partitions: 1}),
	}
	if err := w.store.Rebuild(t.Context(), 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) id() task.ID { return w.minter.New("acme", time.Now()) }

// wait holds a call back while the test wants it.
func (w *world) wait() {
	w.mu.Lock()
	hold := w.hold
	w.mu.Unlock()
	if hold != nil {
		<-hold
	}
}

// Accept implements ws.Intake.
func (w *world) Accept(_ context.Context, s ingest.Submission) (ingest.Receipt, error) {
	w.wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return ingest.Receipt{}, w.err
	}
	w.accepted = append(w.accepted, s)
	if s.Key != "" {
		return ingest.Receipt{ID: w.minter.Keyed(s.Tenant, s.Key, [32]byte{}, time.Now()), Repeat: len(w.accepted) > 1}, nil
	}
	return ingest.Receipt{ID: w.id()}, nil
}

// Cancel implements ws.Desk.
func (w *world) Cancel(_ context.Context, _ string, id task.ID) (cancel.Outcome, error) {
	w.wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopErr != nil {
		return cancel.Outcome{}, w.stopErr
	}
	w.stopped = append(w.stopped, id)
	return cancel.Outcome{Task: api.Task{TaskID: id, Status: task.Cancelled, Attempts: []task.Attempt{}}, Ended: true}, nil
}

// Authenticate lets in every token as its tenant, with the scopes after a colon.
func (w *world) Authenticate(_ context.Context, bearer string) (auth.Principal, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	tenant, scopes, limited := strings.Cut(bearer, ":")
	if tenant == "" || w.revoked {
		return auth.Principal{}, auth.ErrUnauthenticated
	}
	p := auth.Principal{Tenant: tenant, Scopes: []string{auth.ScopeAll}}
	if limited {
		p.Scopes = strings.Split(scopes, "+")
	}
	return p, nil
}

// Find implements auth.Finder: a key's id is the key.
func (w *world) Find(ctx context.Context, keyID string) (auth.Principal, error) {
	return w.Authenticate(ctx, keyID)
}

// Briefs implements lookup.Briefs.
func (w *world) Briefs(ctx context.Context, ids []task.ID) ([]taskstore.Brief, error) {
	w.mu.Lock()
	frozen := w.frozen
	if frozen && ctx.Err() == nil {
		w.waited++
	}
	w.mu.Unlock()
	if frozen {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return w.store.Briefs(ctx, ids)
}

// Params implements lookup.Briefs.
func (w *world) Params() taskstore.Params { return w.store.Params() }

func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

func (w *world) cancels() []task.ID {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]task.ID(nil), w.stopped...)
}

func fence(attempt int) event.Fence {
	f, err := event.NewFence(0, 0, int32(attempt), 0)
	if err != nil {
		panic(err)
	}
	return f
}

// attempt writes the events of one attempt, deltas many of them.
func (w *world) attempt(id task.ID, n, deltas int) {
	f := fence(n)
	if err := w.log.Claim(context.Background(), eventlog.Claim{ID: id, Fence: f, Attempt: n}); err != nil {
		w.t.Error(err)
	}
	for seq := 1; seq <= deltas; seq++ {
		w.say(id, n, seq, fmt.Sprint("piece ", n, ".", seq))
	}
}

func (w *world) say(id task.ID, attempt, seq int, text string) {
	e := event.Event{ID: event.ID{Fence: fence(attempt), Seq: uint64(seq)}, Type: event.Delta, TaskID: id, Text: text}
	if err := w.log.Append(context.Background(), []eventlog.Append{{ID: id, Events: []event.Event{e}}})[0]; err != nil {
		w.t.Error(err)
	}
}

// end applies a terminal as the projector does.
func (w *world) end(id task.ID, s task.Status) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var generation uint8
	t := &terminal.Terminal{
		SchemaVersion: 1, TaskID: id, Status: s, Generation: &generation, Tenant: "acme", Model: "sim-chat",
		Output: &task.Output{Text: "all of it"}, CreatedAt: time.Now(), EndedAt: time.Now(),
	}
	if err := w.store.Apply(context.Background(), 0, w.next, w.next+1, []taskstore.Applied{{Terminal: t, Offset: w.next}}); err != nil {
		w.t.Error(err)
	}
	w.next++
}

// replica is one process that serves sockets.
type replica struct {
	*world
	url   string
	query string // of the next sockets
	reg   *prometheus.Registry
	api   *ws.API
	cfg   httpserver.Config
	stop  func() // drains it
}

// serve starts a replica, which the end of the test drains.
func (w *world) serve(p ws.Params) *replica {
	w.t.Helper()
	if p.DrainSpread == 0 {
		p.DrainSpread = time.Millisecond
	}
	r := &replica{world: w, reg: prometheus.NewRegistry(), cfg: httpserver.DefaultConfig()}
	r.cfg.BodyLimit = 1 << 20
	quiet := slog.New(slog.DiscardHandler)
	follower := follow.New(w.store, w.log, follow.Params{})
	var err error
	r.api, err = ws.New(ws.Deps{
		Intake: w, Metrics: ingest.NewMetrics(r.reg), Limits: admit.New(admit.Params{InFlightBytes: 4 << 20}, r.reg), Desk: w,
		Follower: follower, Store: w, IDs: w.minter, Results: claimcheck.New(nil, claimcheck.Params{}),
		Auth: w, Tickets: w.tickets, Schemas: spec.FS, Log: quiet, Registry: r.reg,
	}, p)
	if err != nil {
		w.t.Fatal(err)
	}
	server := httpserver.New(r.cfg, quiet, r.reg)
	r.api.Register(server.Echo())
	front := httptest.NewServer(server.Echo())
	r.url = front.URL
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = follower.Run(ctx) })
	r.stop = sync.OnceFunc(func() { r.api.Drain(); stop(); wg.Wait(); front.Close() })
	w.t.Cleanup(r.stop)
	return r
}

func setup(t *testing.T, p ws.Params) *replica {
	t.Helper()
	return newWorld(t).serve(p)
}

// client is a WebSocket's other end.
type client struct {
	t    *testing.T
	conn *websocket.Conn
}

// dial opens a socket as tenant acme; headers are given as name, value, ….
func (r *replica) dial(headers ...string) *client {
	r.t.Helper()
	conn, res, err := r.try(headers...)
	if err != nil {
		r.t.Fatalf("%v, %v", err, res)
	}
	conn.SetReadLimit(8 << 20)
	r.t.Cleanup(func() { _ = conn.CloseNow() })
	return &client{r.t, conn}
}

func (r *replica) try(headers ...string) (*websocket.Conn, *http.Response, error) {
	h := http.Header{"Authorization": {"Bearer acme"}}
	for i := 0; i < len(headers); i += 2 {
		if h.Set(headers[i], headers[i+1]); headers[i+1] == "" {
			h.Del(headers[i])
		}
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	return websocket.Dial(ctx, r.url+"/v1/ws"+r.query, &websocket.DialOptions{HTTPHeader: h})
}

// say sends one message.
func (c *client) say(text string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
	defer cancel()
	if err := c.conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) send(m api.SocketRequest) {
	c.t.Helper()
	text, err := json.Marshal(m)
	if err != nil {
		c.t.Fatal(err)
	}
	c.say(string(text))
}

// hear waits for one message.
func (c *client) hear() api.SocketReply {
	c.t.Helper()
	m, err := c.next()
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

func (c *client) next() (api.SocketReply, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
	defer cancel()
	var m api.SocketReply
	_, text, err := c.conn.Read(ctx)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(text, &m); err != nil {
		c.t.Errorf("%v in %.200s", err, text)
	}
	return m, nil
}

// ask sends a message and waits for its answer.
func (c *client) ask(m api.SocketRequest) api.SocketReply {
	c.t.Helper()
	c.send(m)
	return c.hear()
}

// closed reads until the server closes, and returns the code.
func (c *client) closed() websocket.StatusCode {
	c.t.Helper()
	for {
		if _, err := c.next(); err != nil {
			return websocket.CloseStatus(err)
		}
	}
}

// event decodes an event message.
func (c *client) event(m api.SocketReply) event.Event {
	c.t.Helper()
	var e event.Event
	if m.Op != api.OpEvent {
		c.t.Fatalf("heard %+v, want an event", m)
	}
	if err := json.Unmarshal(m.Event, &e); err != nil {
		c.t.Fatal(err)
	}
	return e
}

// line is an event as tests compare it.
func line(e event.Event) string { return fmt.Sprintf("%s %s %s", e.ID, e.Type, e.Text) }

const hello = `{"model":"sim-chat","payload":{"text":"hello"}}`
