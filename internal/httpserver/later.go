package httpserver

import (
	"context"
	"errors"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/auth"
)

// Later has the rest of an answer run once the handler, its middlewares and Echo
// have returned. An event stream is open for an hour, and all of these would stay
// on its stack, several KiB of each of thousands of streams. The answer must have
// begun. Rest may not use c, but what NewLaterWriter and Again returned; its
// context is the request's, without what middlewares have put there. A panic cuts
// the connection.
func Later(c echo.Context, rest func(context.Context)) error {
	known := aboutOf(c)
	if known.ResponseWriter == nil { // a router that no Server serves
		rest(c.Request().Context())
		return nil
	}
	known.rest = rest
	return nil
}

// Again is a request that can be put before a middleware once more, also after
// its handler has returned.
type Again struct {
	router *echo.Echo
	r      *http.Request
	let    echo.HandlerFunc
}

// NewAgain returns the request for a middleware that authenticates, which knows
// then that it has let the caller in before.
func NewAgain(c echo.Context, mw echo.MiddlewareFunc) Again {
	r := c.Request()
	if known := aboutOf(c); known.r != nil {
		r = known.r // which net/http keeps anyhow
	}
	return Again{router: c.Echo(), r: r, let: mw(func(echo.Context) error { return nil })}
}

// Enter returns the middleware's error.
func (a Again) Enter(ctx context.Context) error {
	c := a.router.NewContext(a.r.WithContext(auth.With(ctx, auth.Principal{})), nil)
	a.router.Router().Find(a.r.Method, echo.GetPath(a.r), c)
	return a.let(c)
}

// ServeHTTP answers a request: Echo first, then what it left for Later. What is
// on the stack from here on is kept of each of thousands of streams.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if known := s.route(w, r); known.rest != nil {
		s.carryOn(known)
	}
}

// route is apart so that nothing of it stays on the stack.
func (s *Server) route(w http.ResponseWriter, r *http.Request) *about {
	known := &about{ResponseWriter: w, r: r, patience: &s.patience}
	s.echo.ServeHTTP(known, r)
	return known
}

// carryOn runs the rest of an answer, and then has it logged and counted.
func (s *Server) carryOn(known *about) {
	defer s.conclude(known)
	known.rest(known.ctx)
	known.rest = nil
}

// conclude logs and counts. After a panic it cuts the answer: a clean end would
// be read as success.
func (s *Server) conclude(known *about) {
	whole := known.rest == nil
	s.finish(known, whole)
	if whole {
		return
	}
	if cause := asError(recover()); !errors.Is(cause, http.ErrAbortHandler) {
		s.logPanic(cause, known.route, known.id)
	}
	panic(http.ErrAbortHandler)
}
