package httpserver

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
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

// observe writes one access log line per request and counts it. The line has
// the route's template, not the path, and no query: those may hold tickets.
func observe(e *echo.Echo, log *slog.Logger, m *metrics) echo.MiddlewareFunc {
	routes := sync.OnceValue(func() map[string]bool { return routePaths(e) }) // at the first request all are there
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			start, method, whole := time.Now(), methodLabel(c.Request().Method), false
			m.inFlight.Inc()
			defer func() { // also when a handler cuts the connection by a panic
				m.inFlight.Dec()
				route := c.Path()
				if !routes()[route] {
					route = unmatched
				}
				took := time.Since(start)
				m.observe(method, route, c.Response().Status, took)
				logAccess(c, log, method, route, took, whole)
			}()
			if err := next(c); err != nil {
				c.Error(err) // here, so that the status is known above
			}
			whole = true
			return nil
		}
	}
}

func logAccess(c echo.Context, log *slog.Logger, method, route string, took time.Duration, whole bool) {
	ctx := context.WithoutCancel(c.Request().Context())
	level := slog.LevelInfo
	if isHealth(route) {
		level = slog.LevelDebug
	}
	if !log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("method", method),
		slog.String("route", route),
		slog.Int("status", c.Response().Status),
		slog.Int64("bytes", c.Response().Size),
		slog.Float64("response_time_ms", float64(took.Microseconds())/1000),
		slog.String("request_id", RequestID(c)),
		slog.String("trace_id", telemetry.TraceID(telemetry.TraceParent(ctx))),
		slog.String("remote_ip", c.RealIP()),
	}
	if !whole {
		attrs = append(attrs, slog.Bool("aborted", true))
	}
	log.LogAttrs(ctx, level, "request", append(attrs, aboutOf(c).attrs...)...)
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
