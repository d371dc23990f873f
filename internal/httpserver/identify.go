package httpserver

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/telemetry"
)

// HeaderRequestID names a request in the answer, the log and the error body.
const HeaderRequestID = "X-Request-Id"

// about is what the middlewares know of a request. It travels in the request's
// context: Echo's own store is a map, a third of a KiB of every open stream.
type about struct {
	id        string
	bodyLimit int64
	attrs     []slog.Attr // of the access log, besides its own

	w      http.ResponseWriter // as net/http gave them; nil: no Server serves the request
	r      *http.Request
	rest   func()           // of the answer, see Later
	finish func(whole bool) // logs and counts an answer with a rest
	sent   int64            // bytes that a StreamWriter wrote past Echo
}

type aboutKey struct{}

// aboutOf is never nil; of a request that was not identified it knows nothing.
func aboutOf(c echo.Context) *about {
	if known, ok := c.Request().Context().Value(aboutKey{}).(*about); ok {
		return known
	}
	return &about{}
}

// identify gives every request its id and its place in a trace. What a Server
// noted of it before stays. A caller's own
// id is kept if it is short and printable; its traceparent becomes the parent.
func (s *Server) identify(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		req, known := c.Request(), aboutOf(c)
		known.id, known.bodyLimit = telemetry.RequestID(req.Header.Get(HeaderRequestID)), int64(s.cfg.BodyLimit)
		c.Response().Header().Set(HeaderRequestID, known.id)
		ctx := telemetry.WithTraceParent(req.Context(), telemetry.ChildTraceParent(req.Header.Get(telemetry.HeaderTraceParent)))
		if known.w == nil {
			ctx = context.WithValue(ctx, aboutKey{}, known)
		}
		c.SetRequest(req.WithContext(ctx))
		return next(c)
	}
}

// RequestID returns the id of the request, also sent as X-Request-Id.
func RequestID(c echo.Context) string { return aboutOf(c).id }
