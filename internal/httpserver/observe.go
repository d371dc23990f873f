package httpserver

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/telemetry"
)

// unmatched is the route of requests that no route matched: their paths are
// the caller's invention and belong in no label.
const unmatched = "unmatched"

// AddLogAttrs adds attributes to the access log line of this request, such as
// task_id or backend. Never payloads, never secrets.
func AddLogAttrs(c echo.Context, attrs ...slog.Attr) {
	known := aboutOf(c)
	known.attrs = append(known.attrs, attrs...)
}

// observe writes one access log line per request and counts it, at the end of
// its answer. The line has the route's template, not the path, and no query:
// those may hold tickets.
func (s *Server) observe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		known, whole := aboutOf(c), false
		known.start = time.Now()
		s.metrics.inFlight.Inc()
		defer func() { // also when a handler cuts the connection by a panic
			known.route, known.status, known.sent = s.routeOf(c), c.Response().Status, c.Response().Size
			if !whole || known.rest == nil {
				known.rest = nil
				s.finish(known, whole)
			}
		}()
		if err := next(c); err != nil {
			c.Error(err) // here, so that the status is known above
		}
		whole = true
		return nil
	}
}

// finish logs and counts a request. A whole answer is one that nothing cut.
func (s *Server) finish(known *about, whole bool) {
	took, method := time.Since(known.start), methodLabel(known.r.Method)
	s.metrics.inFlight.Dec()
	s.metrics.observe(method, known.route, known.status, took)
	ctx, level := context.WithoutCancel(known.ctx), slog.LevelInfo
	if isHealth(known.route) {
		level = slog.LevelDebug
	}
	if !s.log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("method", method),
		slog.String("route", known.route),
		slog.Int("status", known.status),
		slog.Int64("bytes", known.sent),
		slog.Float64("response_time_ms", float64(took.Microseconds())/1000),
		slog.String("request_id", known.id),
		slog.String("trace_id", telemetry.TraceID(telemetry.TraceParent(ctx))),
		slog.String("remote_ip", s.echo.IPExtractor(known.r)),
	}
	if !whole {
		attrs = append(attrs, slog.Bool("aborted", true))
	}
	s.log.LogAttrs(ctx, level, "request", append(attrs, known.attrs...)...)
}

// routeOf is the template of the route that answers a request.
func (s *Server) routeOf(c echo.Context) string {
	if route := c.Path(); s.routes()[route] {
		return route
	}
	return unmatched
}

func routePaths(e *echo.Echo) map[string]bool {
	paths := map[string]bool{}
	for _, r := range e.Routes() {
		if r.Method != echo.RouteNotFound {
			paths[r.Path] = true
		}
	}
	return paths
}

// methodLabel keeps the label's values closed: a caller may invent methods.
func methodLabel(method string) string {
	known := []string{http.MethodGet, http.MethodPost, http.MethodDelete, http.MethodPut, http.MethodPatch, http.MethodHead, http.MethodOptions}
	if slices.Contains(known, method) {
		return method
	}
	return "other"
}

func isHealth(route string) bool {
	return strings.HasSuffix(route, "z") && strings.Count(route, "/") == 1 || route == "/v1/health"
}

// levelOf says who must act on a failed request: 503 and 504 heal themselves.
func levelOf(status int) slog.Level {
	if status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout {
		return slog.LevelWarn
	}
	return slog.LevelError
}
