// Package sse is the transport of task events: Server-Sent Events, of one task
// or of many.
//
// A stream bears ids, so that a client that was cut (by the network, by being
// slow, by a drain) resumes after the last event it has. One event is one write
// and one flush. Nothing waits for a client: whoever does not take an event
// within the write timeout is cut.
package sse

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/lookup"
	"github.com/penstock/penstock/internal/parting"
	"github.com/penstock/penstock/internal/seats"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// Params are the developer's choices; zero values are the defaults.
type Params struct {
	Heartbeat    time.Duration // default 15 s
	WriteTimeout time.Duration // how long a client may take for one event; default 8 s
	Lifetime     time.Duration // after which a client is asked to reconnect, give or take a fifth; default 1 h
	Recheck      time.Duration // how often a client's key is checked again; default 60 s
	DrainSpread  time.Duration // over which a drain spreads its goodbyes; default 20 s
	Streams      int           // open at once in this process; default 20,000
	PerTenant    int           // and of one tenant; default 10,000
	Results      Results       // default: no blob store
}

func (p Params) withDefaults() Params {
	set := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	set(&p.Heartbeat, 15*time.Second)
	set(&p.WriteTimeout, 8*time.Second)
	set(&p.Lifetime, time.Hour)
	set(&p.Recheck, time.Minute)
	set(&p.DrainSpread, 20*time.Second)
	if p.Streams == 0 {
		p.Streams = 20_000
	}
	if p.PerTenant == 0 {
		p.PerTenant = 10_000
	}
	if p.Results == nil {
		p.Results = claimcheck.New(nil, claimcheck.Params{})
	}
	return p
}

// API serves the routes.
type API struct {
	store    lookup.Briefs
	follower *follow.Follower
	ids      lookup.IDs
	p        Params
	log      *slog.Logger
	metrics  *metrics

	enters   struct{ one, many echo.MiddlewareFunc } // authenticate a request
	seats    *seats.Seats
	bufs     sync.Pool   // of frames that are written
	draining atomic.Bool // streams must end

	mu   sync.Mutex // guards open
	open map[*running]struct{}
}

// New returns the routes over a projection and a follower.
func New(store lookup.Briefs, follower *follow.Follower, ids lookup.IDs, p Params, log *slog.Logger, reg prometheus.Registerer) *API {
	p = p.withDefaults()
	return &API{
		open: map[*running]struct{}{}, store: store, follower: follower, ids: ids, p: p, log: log,
		metrics: newMetrics(reg), seats: seats.New(seats.Params{All: p.Streams, PerTenant: p.PerTenant}),
	}
}

// Register mounts the routes behind middlewares that authenticate.
func (a *API) Register(e *echo.Echo, byKey, orByTicket echo.MiddlewareFunc) {
	a.enters.one, a.enters.many = orByTicket, byKey
	e.GET("/v1/tasks/:id/events", a.one, orByTicket)
	e.GET("/v1/events", a.many, byKey)
}

// Drain asks every client to reconnect, each at its own moment of the spread.
func (a *API) Drain() {
	a.draining.Store(true)
	a.mu.Lock()
	defer a.mu.Unlock()
	for r := range a.open {
		r.knock()
	}
}

// one answers GET /v1/tasks/{id}/events.
func (a *API) one(c echo.Context) error {
	p, err := a.planOne(c)
	if err != nil {
		return err
	}
	return a.serve(c, p)
}

func (a *API) planOne(c echo.Context) (*plan, error) {
	id, err := lookup.CheckID(a.ids, c.Param("id"), httpserver.Principal(c).Tenant)
	if err != nil {
		return nil, err
	}
	after, err := afterOf(c)
	if err != nil {
		return nil, err
	}
	return &plan{watches: []follow.Watch{{ID: id, After: after}}, again: httpserver.NewAgain(c, a.enters.one)}, nil
}

// many answers GET /v1/events?task=a&task=b.
func (a *API) many(c echo.Context) error {
	p, err := a.planMany(c)
	if err != nil {
		return err
	}
	return a.serve(c, p)
}

func (a *API) planMany(c echo.Context) (*plan, error) {
	names := c.QueryParams()["task"]
	if len(names) == 0 || len(names) > api.MaxWatched {
		return nil, badQuery("task", "name 1 to %d tasks as ?task=…&task=…", api.MaxWatched)
	}
	ids := make([]task.ID, len(names))
	for i, name := range names {
		var err error
		if ids[i], err = lookup.CheckID(a.ids, name, httpserver.Principal(c).Tenant); err != nil {
			return nil, err
		}
	}
	cur := newCursor(ids)
	if text := lastID(c); text != "" {
		var err error
		if cur, err = parseCursor(text, ids); err != nil {
			return nil, badQuery("after", "after must be the id of a frame of a stream of the same tasks")
		}
	}
	return &plan{watches: cur.watches(), cursor: cur, again: httpserver.NewAgain(c, a.enters.many)}, nil
}

// lastID is what the client resumes after. The header is newer than the query
// of the URL that an EventSource opens again.
func lastID(c echo.Context) string {
	if last := c.Request().Header.Get("Last-Event-ID"); last != "" {
		return last
	}
	return c.QueryParam("after")
}

func afterOf(c echo.Context) (event.ID, error) {
	text := lastID(c)
	if text == "" {
		return event.ID{}, nil
	}
	id, err := event.ParseID(text)
	if err != nil {
		return id, badQuery("after", "after, or Last-Event-ID, must be an event id such as 0-1")
	}
	return id, nil
}

func badQuery(param, format string, args ...any) error {
	e := httpserver.Fail(fault.Malformed, format, args...)
	e.Param = param
	return e
}

// plan is what one request streams. The cursor is nil for a single task.
type plan struct {
	watches []follow.Watch
	again   httpserver.Again
	cursor  *cursor
	lastID  time.Time // when a frame bore an id
}

// serve answers with a stream, 204 if the client has seen the end, or what is
// wrong. The stream itself goes on when all that led to it has returned.
func (a *API) serve(c echo.Context, p *plan) error {
	leave, err := a.enter(c, p)
	if leave == nil {
		return err
	}
	r, err := a.begin(c, p)
	if r == nil {
		leave()
		return err
	}
	r.leave = leave
	return httpserver.Later(c, r.run)
}

// enter lets a request in that is to be a stream; leave is called at its end.
// Any other is answered, or err says with what, and leave is nil. A client that
// reconnects by itself gives up for good on any status but 200, so for trouble
// that passes it is told to come back.
func (a *API) enter(c echo.Context, p *plan) (leave func(), err error) {
	over, err := a.check(c.Request().Context(), p)
	if err == nil && over {
		return nil, c.NoContent(http.StatusNoContent)
	}
	if err == nil {
		leave, err = a.admit(httpserver.Principal(c).Tenant)
	}
	if err != nil && httpserver.AsError(err).Status == http.StatusServiceUnavailable && c.Request().Header.Get("Last-Event-ID") != "" {
		a.metrics.streams.WithLabelValues(endRetry).Inc()
		return nil, a.comeBack(c)
	}
	return leave, err
}

// check looks every task up before the first byte. It reports true if the
// client has seen the end of all of them.
func (a *API) check(ctx context.Context, p *plan) (over bool, err error) {
	if a.draining.Load() {
		return false, lookup.Unavailable(parting.ErrDraining)
	}
	if p.watches, err = lookup.Open(ctx, a.store, a.follower, p.watches); err != nil {
		return false, err
	}
	return len(p.watches) == 0, nil
}

// admit counts a stream in, or refuses it.
func (a *API) admit(tenant string) (release func(), err error) {
	leave, err := a.seats.Take(tenant, "streams", "close some, or watch several tasks over one with /v1/events")
	if err != nil {
		return nil, err
	}
	a.metrics.subscribers.Inc()
	return func() { a.metrics.subscribers.Dec(); leave() }, nil
}

// comeBack answers a reconnecting client in trouble: 200, a wait, the end.
func (a *API) comeBack(c echo.Context) error {
	if err := httpserver.BeginStream(c); err != nil {
		return nil //nolint:nilerr // the client went away
	}
	_, _ = c.Response().Write(append(appendRetry(nil, parting.Wait()), '\n'))
	return nil
}

// running is a stream that is open. What it keeps is kept of each of thousands.
type running struct {
	a      *API
	p      *plan
	ctx    context.Context
	leave  func() // gives its seat back
	events *follow.Stream
	w      writer

	knocked atomic.Bool // it is time for idle
	timer   *time.Timer // knocks
	ping    time.Time   // when the next is due
	ends    time.Time   // when its client is to come back
	why     error
	checked time.Time // when the caller's key was
}

// begin opens a stream; nil if there is none to be.
func (a *API) begin(c echo.Context, p *plan) (*running, error) {
	events, err := a.follower.FollowMany(c.Request().Context(), p.watches)
	if err != nil {
		return nil, err
	}
	p.watches = nil // from here on they are the stream's
	now := time.Now()
	r := &running{
		a: a, p: p, events: events, w: writer{to: httpserver.NewLaterWriter(c, a.p.WriteTimeout), bufs: &a.bufs},
		checked: now, ping: now.Add(a.p.Heartbeat), ends: now.Add(parting.Age(a.p.Lifetime)), why: parting.ErrLifetime,
	}
	r.timer = time.AfterFunc(a.p.Heartbeat, r.knock)
	r.knocked.Store(true)
	a.note(r)
	if httpserver.BeginStream(c) != nil { // the client went away
		r.close()
		return nil, nil
	}
	return r, nil
}

// note puts a stream among those that a drain knocks at.
func (a *API) note(r *running) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open[r] = struct{}{}
}

func (a *API) forget(r *running) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, r)
}

// knock has whoever runs the stream look what is due.
func (r *running) knock() {
	r.knocked.Store(true)
	r.events.Nudge()
}

func (r *running) close() {
	r.a.forget(r)
	r.timer.Stop()
	r.events.Close()
}

// run moves events to the client until the stream ends. While it waits nothing
// but it is on the stack, for the garbage collector makes a stack of which less
// than a quarter is used half as large: that is 4 KiB of every stream.
func (r *running) run(ctx context.Context) {
	defer r.leave()
	defer r.close()
	r.ctx = ctx
	for r.turn() {
		r.events.Wait(ctx)
	}
}

// turn moves what there is; false: it was the last.
func (r *running) turn() bool {
	for {
		var it follow.Item
		ok, err := false, follow.ErrIdle
		if !r.knocked.CompareAndSwap(true, false) {
			if it, ok, err = r.events.Take(r.ctx); !ok && err == nil {
				return true
			}
		}
		if !r.pass(it, err) {
			return false
		}
	}
}

// pass sends what came of waiting; false: it was the last, and is accounted for.
func (r *running) pass(it follow.Item, err error) (more bool) {
	end, err := r.send(it, err)
	if end == "" {
		return true
	}
	if err != nil {
		r.a.log.DebugContext(r.ctx, "event stream ended", "end", end, "err", err)
	}
	r.a.metrics.streams.WithLabelValues(end).Inc()
	return false
}

// send sends an event, or what stands for the lack of one, and says how the
// stream ended if it did.
func (r *running) send(it follow.Item, err error) (end string, _ error) {
	if now := time.Now(); now.Sub(r.checked) >= r.a.p.Recheck {
		if err := r.p.again.Enter(r.ctx); err != nil { // the key was revoked, or lost its scope
			return endRevoked, err
		}
		r.checked = now
	}
	switch {
	case err == nil:
		return r.event(it)
	case errors.Is(err, follow.ErrIdle):
		return r.idle()
	case errors.Is(err, io.EOF):
		return endWhole, nil
	case errors.Is(err, follow.ErrSlow):
		return endCut, err // it would not read a goodbye
	default:
		return endGone, err
	}
}

// idle says goodbye where it is time, or that the server is still there. One
// timer is for both.
func (r *running) idle() (end string, err error) {
	now := time.Now()
	if r.a.draining.Load() && r.why != parting.ErrDraining {
		r.why = parting.ErrDraining
		r.ends = earlier(r.ends, now.Add(rand.N(r.a.p.DrainSpread+1)))
	}
	if !now.Before(r.ends) {
		return endReconnect, r.w.goodbye(parting.Reason(r.why))
	}
	if !now.Before(r.ping) {
		if err := r.w.ping(); err != nil {
			return endCut, err
		}
		r.ping = now.Add(r.a.p.Heartbeat)
	}
	r.timer.Reset(earlier(r.ping, r.ends).Sub(now))
	return "", nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func (r *running) event(it follow.Item) (end string, _ error) {
	e, release, err := r.a.p.Results.Event(r.ctx, it.Entry)
	if err != nil {
		return endReconnect, errors.Join(err, r.w.goodbye("results"))
	}
	defer release()
	if err := r.w.event(e, r.p.idOf(it, time.Now())); err != nil {
		return endCut, err
	}
	r.a.metrics.events.Inc()
	return "", nil
}

const (
	// manyInside is how many tasks may be in the middle of their events while
	// each frame still bears the cursor of them all.
	manyInside = 64
	// cursorEvery is how often a frame bears the cursor beyond that.
	cursorEvery = 50 * time.Millisecond
)

// idOf is the id of the frame: the event's own on a stream of one task, the
// cursor on a stream of many. With very many tasks in the middle of their
// events it is left out of most frames: who resumes then gets some events
// again, and knows them by the id in the data.
func (p *plan) idOf(it follow.Item, now time.Time) string {
	if p.cursor == nil {
		return it.ID.String()
	}
	p.cursor.advance(it.Task, it.ID)
	if p.cursor.inside > manyInside && now.Sub(p.lastID) < cursorEvery {
		return ""
	}
	p.lastID = now
	return p.cursor.String()
}

// writer writes frames, each in one write with its own deadline. It holds no
// buffer between two: most streams wait most of the time.
type writer struct {
	to   httpserver.StreamWriter
	bufs *sync.Pool // of *[]byte
}

func (w *writer) event(e eventlog.Entry, id string) error {
	return w.send(func(b []byte) []byte { return appendFrame(b, e, id) })
}

func (w *writer) ping() error {
	return w.send(func(b []byte) []byte { return append(b, pingFrame...) })
}

func (w *writer) goodbye(reason string) error {
	return w.send(func(b []byte) []byte { return appendReconnect(b, parting.Wait(), reason) })
}

// keepBuffer is the largest buffer kept between frames.
const keepBuffer = 64 << 10

func (w *writer) send(frame func([]byte) []byte) error {
	buf, _ := w.bufs.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	*buf = frame((*buf)[:0])
	err := w.to.Send(*buf)
	if cap(*buf) <= keepBuffer {
		w.bufs.Put(buf)
	}
	return err
}
