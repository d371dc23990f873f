package httpserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"

	"github.com/labstack/echo/v4"
)

// Later has the rest of an answer run once the handler, its middlewares and Echo
// have returned. An event stream is open for an hour, and all of these would stay
// on its stack, several KiB of each of thousands of streams. The answer must have
// begun, and rest may use of c nothing but the request's context, and what
// NewLaterWriter and Again returned. A panic cuts the connection.
func Later(c echo.Context, rest func()) error {
	known := aboutOf(c)
	if known.w == nil { // a router that no Server serves
		rest()
		return nil
	}
	known.rest = rest
	return nil
}

// Again returns a function that puts the request before a middleware once more,
// also after the handler has returned. It returns the middleware's error.
func Again(c echo.Context, mw echo.MiddlewareFunc) func(context.Context) error {
	e, req, path := c.Echo(), c.Request(), c.Path()
	if known := aboutOf(c); known.r != nil {
		req = known.r // which net/http keeps anyhow
	}
	names, values := append([]string(nil), c.ParamNames()...), append([]string(nil), c.ParamValues()...)
	let := mw(func(echo.Context) error { return nil })
	return func(ctx context.Context) error {
		again := e.NewContext(req.WithContext(ctx), nil)
		again.SetPath(path)
		again.SetParamNames(names...)
		again.SetParamValues(values...)
		return let(again)
	}
}

// ServeHTTP answers a request: Echo first, then what it left for Later.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if known := s.route(w, r); known.rest != nil {
		s.carryOn(known)
	}
}

// route is apart so that nothing of it stays on the stack.
func (s *Server) route(w http.ResponseWriter, r *http.Request) *about {
	known := &about{w: w, r: r}
	s.echo.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), aboutKey{}, known)))
	return known
}

// carryOn runs the rest of an answer, and then has it logged and counted.
func (s *Server) carryOn(known *about) {
	whole := false
	defer func() {
		if known.finish != nil {
			known.finish(whole)
		}
		if !whole {
			s.cut(known, recover())
		}
	}()
	known.rest()
	whole = true
}

// cut ends an answer that has begun, after a panic: a clean end would be read as
// success.
func (s *Server) cut(known *about, cause any) {
	if err, ok := cause.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
		s.log.Error("handler panicked", slog.String("err", fmt.Sprint(cause)), "request_id", known.id, "stack", string(debug.Stack()))
	}
	panic(http.ErrAbortHandler)
}
