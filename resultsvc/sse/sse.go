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
	"net/http"
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

	again    struct{ one, many echo.HandlerFunc } // authenticate a request again
	draining context.Context                      // done once streams must end
	drain    context.CancelFunc
	seats    *seats.Seats
}

// New returns the routes over a projection and a follower.
func New(store lookup.Briefs, follower *follow.Follower, ids lookup.IDs, p Params, log *slog.Logger, reg prometheus.Registerer) *API {
	p = p.withDefaults()
	a := &API{
		store: store, follower: follower, ids: ids, p: p, log: log,
		metrics: newMetrics(reg), seats: seats.New(seats.Params{All: p.Streams, PerTenant: p.PerTenant}),
	}
	a.draining, a.drain = context.WithCancel(context.Background())
	return a
}

// Register mounts the routes behind middlewares that authenticate.
func (a *API) Register(e *echo.Echo, byKey, orByTicket echo.MiddlewareFunc) {
	let := func(echo.Context) error { return nil }
	a.again.one, a.again.many = orByTicket(let), byKey(let)
	e.GET("/v1/tasks/:id/events", a.one, orByTicket)
	e.GET("/v1/events", a.many, byKey)
}

// Drain asks every client to reconnect, each at its own moment of the spread.
func (a *API) Drain() { a.drain() }

// one answers GET /v1/tasks/{id}/events.
func (a *API) one(c echo.Context) error {
	id, err := lookup.CheckID(a.ids, c.Param("id"), httpserver.Principal(c).Tenant)
	if err != nil {
		return err
	}
	after, err := afterOf(c)
	if err != nil {
		return err
	}
	return a.serve(c, &plan{watches: []follow.Watch{{ID: id, After: after}}, recheck: a.again.one})
}

// many answers GET /v1/events?task=a&task=b.
func (a *API) many(c echo.Context) error {
	names := c.QueryParams()["task"]
	if len(names) == 0 || len(names) > api.MaxWatched {
		return badQuery("task", "name 1 to %d tasks as ?task=…&task=…", api.MaxWatched)
	}
	ids := make([]task.ID, len(names))
	for i, name := range names {
		var err error
		if ids[i], err = lookup.CheckID(a.ids, name, httpserver.Principal(c).Tenant); err != nil {
			return err
		}
	}
	cur := newCursor(ids)
	if text := lastID(c); text != "" {
		var err error
		if cur, err = parseCursor(text, ids); err != nil {
			return badQuery("after", "after must be the id of a frame of a stream of the same tasks")
		}
	}
	return a.serve(c, &plan{watches: cur.watches(), cursor: cur, recheck: a.again.many})
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
	recheck echo.HandlerFunc
	cursor  *cursor
	lastID  time.Time // when a frame bore an id
}

// serve answers with a stream, 204 if the client has seen the end, or what is
// wrong. A client that reconnects by itself gives up for good on any status
// but 200, so for trouble that passes it is told to come back.
func (a *API) serve(c echo.Context, p *plan) error {
	over, err := a.check(c.Request().Context(), p)
	if err == nil && over {
		return c.NoContent(http.StatusNoContent)
	}
	var release func()
	if err == nil {
		release, err = a.admit(httpserver.Principal(c).Tenant)
	}
	if err != nil {
		if httpserver.AsError(err).Status == http.StatusServiceUnavailable && c.Request().Header.Get("Last-Event-ID") != "" {
			a.metrics.streams.WithLabelValues(endRetry).Inc()
			return a.comeBack(c)
		}
		return err
	}
	defer release()
	return a.stream(c, p)
}

// check looks every task up before the first byte. It reports true if the
// client has seen the end of all of them.
func (a *API) check(ctx context.Context, p *plan) (over bool, err error) {
	if a.draining.Err() != nil {
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

// stream sends events until there are no more, or the client, the connection's
// age or a drain ends it.
func (a *API) stream(c echo.Context, p *plan) error {
	ctx, cancel := context.WithCancelCause(c.Request().Context())
	defer cancel(nil)
	defer parting.Terms{Lifetime: a.p.Lifetime, Draining: a.draining, Spread: a.p.DrainSpread}.Schedule(cancel)()
	s, err := a.follower.FollowMany(ctx, p.watches)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := httpserver.BeginStream(c); err != nil {
		return nil //nolint:nilerr // the client went away
	}
	w := &writer{to: httpserver.NewStreamWriter(c, a.p.WriteTimeout)}
	end, err := a.pump(ctx, c, s, w, p)
	if err != nil {
		a.log.DebugContext(ctx, "event stream ended", "end", end, "err", err)
	}
	a.metrics.streams.WithLabelValues(end).Inc()
	return nil
}

// pump moves events to the client and says how the stream ended.
func (a *API) pump(ctx context.Context, c echo.Context, s *follow.Stream, w *writer, p *plan) (end string, err error) {
	beat := time.NewTicker(a.p.Heartbeat)
	defer beat.Stop()
	checked := time.Now()
	for {
		it, err := s.Poll(ctx, beat.C)
		if now := time.Now(); now.Sub(checked) >= a.p.Recheck {
			if err := p.recheck(c); err != nil { // the key was revoked, or lost its scope
				return endRevoked, err
			}
			checked = now
		}
		switch {
		case err == nil:
			e, release, err := a.p.Results.Event(ctx, it.Entry)
			if err != nil {
				return endReconnect, errors.Join(err, w.goodbye("results"))
			}
			err = w.event(e, p.idOf(it, time.Now()))
			release()
			if err != nil {
				return endCut, err
			}
			a.metrics.events.Inc()
		case errors.Is(err, follow.ErrIdle):
			if err := w.ping(); err != nil {
				return endCut, err
			}
		case errors.Is(err, io.EOF):
			return endWhole, nil
		case parting.Asked(err):
			return endReconnect, w.goodbye(parting.Reason(err))
		case errors.Is(err, follow.ErrSlow):
			return endCut, err // it would not read a goodbye
		default:
			return endGone, err
		}
	}
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

// writer writes frames, each in one write with its own deadline.
type writer struct {
	to  httpserver.StreamWriter
	buf []byte
}

func (w *writer) event(e eventlog.Entry, id string) error {
	w.buf = appendFrame(w.buf[:0], e, id)
	return w.send()
}

func (w *writer) ping() error {
	w.buf = append(w.buf[:0], pingFrame...)
	return w.send()
}

func (w *writer) goodbye(reason string) error {
	w.buf = appendReconnect(w.buf[:0], parting.Wait(), reason)
	return w.send()
}

// keepBuffer is the largest buffer kept between frames.
const keepBuffer = 64 << 10

func (w *writer) send() error {
	err := w.to.Send(w.buf)
	if cap(w.buf) > keepBuffer {
		w.buf = nil
	}
	return err
}
