package httpserver

import (
	"context"
	"log/slog"

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
}

type aboutKey struct{}

// aboutOf is never nil; of a request that was not identified it knows nothing.
func aboutOf(c echo.Context) *about {
	if known, ok := c.Request().Context().Value(aboutKey{}).(*about); ok {
		return known
	}
	return &about{}
}

// identify gives every request its id and its place in a trace. A caller's own
// id is kept if it is short and printable; its traceparent becomes the parent.
func (s *Server) identify(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		req := c.Request()
		known := &about{id: telemetry.RequestID(req.Header.Get(HeaderRequestID)), bodyLimit: int64(s.cfg.BodyLimit)}
		c.Response().Header().Set(HeaderRequestID, known.id)
		span := telemetry.ChildTraceParent(req.Header.Get(telemetry.HeaderTraceParent))
		ctx := context.WithValue(telemetry.WithTraceParent(req.Context(), span), aboutKey{}, known)
		c.SetRequest(req.WithContext(ctx))
		return next(c)
	}
}

// RequestID returns the id of the request, also sent as X-Request-Id.
func RequestID(c echo.Context) string { return aboutOf(c).id }
