package ws

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/parting"
	"github.com/penstock/penstock/schema/api"
)

// socket is one connection. Its reader takes messages, its pump sends events
// and owns the stream, and each submit or cancel under way has a goroutine that
// sends its own answer.
type socket struct {
	a       *API
	conn    *websocket.Conn
	who     auth.Principal
	request string       // the id of its request, for the log
	recheck func() error // whether the client may still be here
	limit   int64        // bytes of a submit's body

	stream *follow.Stream
	asked  chan ask                // what the reader wants of the pump
	slots  chan struct{}           // one for each submit and cancel under way
	work   sync.WaitGroup          // those goroutines
	stop   context.CancelCauseFunc // ends the socket, once
	cut    atomic.Bool             // a message was not taken in time
}

// maxAsked is how many asks may wait for the pump. It takes them before its next
// event; until then the reader waits, and with it the client.
const maxAsked = 64

func (a *API) newSocket(c echo.Context, conn *websocket.Conn, who auth.Principal) *socket {
	limit := httpserver.BodyLimit(c)
	conn.SetReadLimit(2*limit + maxFrame) // beyond a message that is refused with an answer
	s := &socket{
		a: a, conn: conn, who: who, request: httpserver.RequestID(c), limit: limit,
		stream: a.d.Follower.Open(), asked: make(chan ask, maxAsked), slots: make(chan struct{}, a.p.InFlight),
	}
	again := a.enter(func(echo.Context) error { return nil })
	s.recheck = func() error { return again(c) }
	return s
}

// Errors that end a socket.
var (
	errGone       = errors.New("the client went away")
	errCut        = errors.New("the client takes its messages too slowly")
	errRevoked    = errors.New("the key is not good any more")
	errTooLarge   = errors.New("a message is over the limit")
	errTooSlow    = errors.New("a message came too slowly")
	errUnreadable = errors.New("too many messages cannot be read")
)

// run serves the connection until it ends, and says how. Ctx outlives it.
func (s *socket) run(ctx context.Context) (end string) {
	defer s.stream.Close()
	ctx, s.stop = context.WithCancelCause(ctx)
	defer s.stop(nil)
	defer parting.Terms{Lifetime: s.a.p.Lifetime, Draining: s.a.draining, Spread: s.a.p.DrainSpread}.Schedule(s.stop)()
	var wg sync.WaitGroup
	wg.Go(func() { s.stop(s.read(ctx)) })
	wg.Go(func() { s.stop(s.beat(ctx)) })
	s.stop(s.pump(ctx))
	cause := context.Cause(ctx)
	end = s.finish(cause)
	wg.Wait()
	s.work.Wait()
	s.a.d.Log.Debug("socket ended", "request_id", s.request, "end", end, "err", cause)
	return end
}

// Close codes of our own: RFC 6455 leaves 4000 to 4999 to applications.
const statusSlow websocket.StatusCode = 4008

// patience is how long submits and cancels under way may take to be answered
// once the socket is to be closed.
const patience = 5 * time.Second

// goodbye is how a client is told why its socket ends.
type goodbye struct {
	cause error
	code  websocket.StatusCode
	end   string
}

func goodbyes() []goodbye {
	return []goodbye{
		{parting.ErrDraining, websocket.StatusServiceRestart, endReconnect},
		{parting.ErrLifetime, websocket.StatusServiceRestart, endReconnect},
		{errRevoked, websocket.StatusPolicyViolation, endRevoked},
		{errUnreadable, websocket.StatusPolicyViolation, endRefused},
		{errTooSlow, websocket.StatusPolicyViolation, endRefused},
		{errTooLarge, websocket.StatusMessageTooBig, endRefused},
		{follow.ErrSlow, statusSlow, endCut},
	}
}

// finish says goodbye to a client that can still hear it, and says how the
// socket ended.
func (s *socket) finish(cause error) (end string) {
	for _, g := range goodbyes() {
		if !errors.Is(cause, g.cause) {
			continue
		}
		if g.end == endReconnect {
			s.settle()
			s.reply(api.SocketReply{Op: api.OpReconnect, Reason: parting.Reason(cause), RetryMS: parting.Wait().Milliseconds()})
		}
		_ = s.conn.Close(g.code, g.cause.Error()) // a client that does not answer is cut after 5 s
		return g.end
	}
	_ = s.conn.CloseNow() // there is nobody to hear a goodbye
	switch {
	case s.cut.Load(): // the reader may have been the first to notice
		return endCut
	case websocket.CloseStatus(cause) >= 0:
		return endClosed
	default:
		return endGone
	}
}

// settle lets the submits and cancels under way be answered, within patience,
// and takes their slots so that none begins.
func (s *socket) settle() {
	late := time.NewTimer(patience)
	defer late.Stop()
	for range cap(s.slots) {
		select {
		case s.slots <- struct{}{}:
		case <-late.C:
			return
		}
	}
}

// beat pings the client, so that proxies keep the connection and a client that
// is gone is noticed, and checks now and then that it may still be here.
func (s *socket) beat(ctx context.Context) error {
	beat, recheck := time.NewTicker(s.a.p.Heartbeat), time.NewTicker(s.a.p.Recheck)
	defer beat.Stop()
	defer recheck.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-beat.C:
			if err := s.ping(ctx); err != nil {
				return err
			}
		case <-recheck.C:
			if err := s.recheck(); err != nil {
				return errors.Join(errRevoked, err)
			}
		}
	}
}

// ping waits for the pong, and not beyond the end of the socket. It must not end
// the connection by its context: a goodbye may be due.
func (s *socket) ping(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*s.a.p.Heartbeat)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	if err := s.conn.Ping(waiting); err != nil && ctx.Err() == nil {
		return errors.Join(errGone, err)
	}
	return nil
}
