// Package ws is the WebSocket of the ingress: tasks are submitted, watched,
// stopped and redirected over one connection, in messages of one format
// (schema/api: SocketRequest, SocketReply).
//
// Three things are different here. To stop a task is a cancel, and the engine's
// slot is freed. To disconnect stops nothing: tasks go on, and whoever connects
// again, to any replica, resumes each after the last event it has. To redirect
// is an interrupt: the new task is accepted first, then the old one is stopped,
// so that a refusal leaves the old one as it was.
//
// A connection holds a place in the rings of the tasks that it watches, and no
// queue of its own. Nothing waits for a client: whoever does not take a message
// in time is cut, and misses nothing when it resumes.
package ws

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/lookup"
	"github.com/penstock/penstock/internal/parting"
	"github.com/penstock/penstock/internal/seats"
	"github.com/penstock/penstock/internal/ticket"
	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/producer/cancel"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// Intake accepts tasks: *ingest.Intake.
type Intake interface {
	Accept(ctx context.Context, s ingest.Submission) (ingest.Receipt, error)
}

// Desk stops tasks: *cancel.Desk.
type Desk interface {
	Cancel(ctx context.Context, tenant string, id task.ID) (cancel.Outcome, error)
}

// Results brings large outputs back: *claimcheck.Desk. The errors are of
// trouble that may pass.
type Results interface {
	Task(ctx context.Context, view api.Task) (_ api.Task, release func(), err error)
	Event(ctx context.Context, e eventlog.Entry) (_ eventlog.Entry, release func(), err error)
}

// Deps are the parts that a socket calls.
type Deps struct {
	Intake   Intake
	Metrics  *ingest.Metrics
	Limits   *admit.Limits
	Desk     Desk
	Follower *follow.Follower
	Store    lookup.Briefs
	IDs      lookup.IDs
	Results  Results
	Auth     auth.Authenticator
	Tickets  *ticket.Signer
	Schemas  fs.FS // socketrequest.schema.json and those it names
	Log      *slog.Logger
	Registry prometheus.Registerer
}

// Params are the developer's choices; zero values are the defaults.
type Params struct {
	Heartbeat    time.Duration // between pings; a pong may take twice as long; default 15 s
	WriteTimeout time.Duration // how long a client may take for one message; default 8 s
	MessageTime  time.Duration // in which a message must arrive once it has begun; default 30 s
	StoreTimeout time.Duration // of one look at the projection; default 2 s
	Lifetime     time.Duration // after which a client is asked to reconnect, give or take a fifth; default 1 h
	Recheck      time.Duration // how often a client's key is checked again; default 60 s
	DrainSpread  time.Duration // over which a drain spreads its goodbyes; default 20 s
	Sockets      int           // open at once in this process; default 10,000
	PerTenant    int           // and of one tenant; default 5,000
	InFlight     int           // submits and cancels of one socket that are not answered; default 16
	Faults       int           // messages in a row that cannot be read, until a socket is closed; default 10
	Origins      []string      // hosts whose pages may connect besides our own: patterns as of path.Match
}

func (p Params) withDefaults() Params {
	set := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	set(&p.Heartbeat, 15*time.Second)
	set(&p.WriteTimeout, 8*time.Second)
	set(&p.MessageTime, 30*time.Second)
	set(&p.StoreTimeout, 2*time.Second)
	set(&p.Lifetime, time.Hour)
	set(&p.Recheck, time.Minute)
	set(&p.DrainSpread, 20*time.Second)
	count := func(n *int, otherwise int) {
		if *n == 0 {
			*n = otherwise
		}
	}
	count(&p.Sockets, 10_000)
	count(&p.PerTenant, 5_000)
	count(&p.InFlight, 16)
	count(&p.Faults, 10)
	return p
}

// quietFor is how long a store that did not answer in time is left alone.
const quietFor = time.Second

// API serves GET /v1/ws.
type API struct {
	d       Deps
	p       Params
	schema  *validate.Schema
	metrics *metrics
	seats   *seats.Seats

	draining context.Context // done once sockets must end
	drain    context.CancelFunc
	enter    echo.MiddlewareFunc // authenticates
	quiet    atomic.Int64        // Unix ns until when the store is left alone

	mu   sync.Mutex     // orders open against Drain
	open sync.WaitGroup // of handlers; the HTTP server does not wait for them
}

// New compiles the schema of the messages.
func New(d Deps, p Params) (*API, error) {
	set, err := validate.Compile(d.Schemas)
	if err != nil {
		return nil, fmt.Errorf("compile schemas of messages: %w", err)
	}
	p = p.withDefaults()
	a := &API{d: d, p: p, metrics: newMetrics(d.Registry), seats: seats.New(seats.Params{All: p.Sockets, PerTenant: p.PerTenant})}
	a.draining, a.drain = context.WithCancel(context.Background())
	a.enter = httpserver.AuthenticateOrTicket(d.Auth, d.Tickets)
	a.schema, err = set.Schema("socketrequest")
	return a, err
}

// Register adds the route.
func (a *API) Register(e *echo.Echo) {
	e.GET("/v1/ws", a.serve, a.enter)
}

// Drain asks every client to reconnect, each at its own moment of the spread,
// and returns once the last socket is closed: an HTTP server forgets connections
// that were taken over.
func (a *API) Drain() {
	a.mu.Lock()
	a.drain()
	a.mu.Unlock()
	a.open.Wait()
}

// begin counts a handler, unless the server drains.
func (a *API) begin() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.draining.Err() != nil {
		e := fault.New(fault.Unavailable, "the server is going away: connect again")
		e.RetryAfter, e.Err = time.Second, parting.ErrDraining
		return e
	}
	a.open.Add(1)
	return nil
}

// serve answers GET /v1/ws with a socket, or with what is wrong.
func (a *API) serve(c echo.Context) error {
	if err := a.begin(); err != nil {
		return err
	}
	defer a.open.Done()
	who := httpserver.Principal(c)
	leave, err := a.seats.Take(who.Tenant, "sockets", "close some, or watch several tasks over one")
	if err != nil {
		return err
	}
	defer leave()
	conn, err := a.shake(c)
	if err != nil {
		return err
	}
	a.metrics.sockets.Inc()
	defer a.metrics.sockets.Dec()
	s := a.newSocket(c, conn, who)
	end := s.run(context.WithoutCancel(c.Request().Context()))
	a.metrics.ended.WithLabelValues(end).Inc()
	return nil
}
