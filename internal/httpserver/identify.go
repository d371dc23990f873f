package httpserver

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/telemetry"
)

// HeaderRequestID names a request in the answer, the log and the error body.
const HeaderRequestID = "X-Request-Id"

// about is what is known of a request. It travels in the request's context:
// Echo's own store is a map, a third of a KiB of every open stream.
type about struct {
	id        string
	bodyLimit int64
	attrs     []slog.Attr // of the access log, besides its own

	// As net/http gave them. The writer is nil where no Server serves the request.
	http.ResponseWriter
	r        *http.Request
	patience *patience // of the Server

	ctx   context.Context       // of the request, with its place in a trace
	rest  func(context.Context) // of the answer, see Later; nil: none
	start time.Time

	// Of the answer, from when Echo has returned.
	route  string
	status int
	sent   int64 // bytes
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
		req, known := c.Request(), broughtBy(c)
		known.id, known.bodyLimit = telemetry.RequestID(req.Header.Get(HeaderRequestID)), int64(s.cfg.BodyLimit)
		known.ctx = telemetry.WithTraceParent(req.Context(), telemetry.ChildTraceParent(req.Header.Get(telemetry.HeaderTraceParent)))
		c.Response().Header().Set(HeaderRequestID, known.id)
		c.SetRequest(req.WithContext(context.WithValue(known.ctx, aboutKey{}, known)))
		return next(c)
	}
}

// broughtBy is what a Server knows already. It comes in place of the writer, for
// which a request need not be copied as for its context.
func broughtBy(c echo.Context) *about {
	if known, ok := c.Response().Writer.(*about); ok {
		c.Response().Writer = known.ResponseWriter
		return known
	}
	return &about{r: c.Request()}
}

// RequestID returns the id of the request, also sent as X-Request-Id.
func RequestID(c echo.Context) string { return aboutOf(c).id }
