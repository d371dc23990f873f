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

// observe writes one access log line per request and counts it, at the end of
// its answer. The line has the route's template, not the path, and no query:
// those may hold tickets.
func observe(e *echo.Echo, log *slog.Logger, m *metrics) echo.MiddlewareFunc {
	routes := sync.OnceValue(func() map[string]bool { return routePaths(e) }) // at the first request all are there
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			start, whole := time.Now(), false
			m.inFlight.Inc()
			defer func() { // also when a handler cuts the connection by a panic
				route := c.Path()
				if !routes()[route] {
					route = unmatched
				}
				finish := entry{
					log: log, m: m, ctx: context.WithoutCancel(c.Request().Context()), known: aboutOf(c), start: start,
					method: methodLabel(c.Request().Method), route: route, status: c.Response().Status, bytes: c.Response().Size, ip: c.RealIP(),
				}.write
				if known := aboutOf(c); whole && known.rest != nil {
					known.finish = finish
					return
				}
				finish(whole)
			}()
			if err := next(c); err != nil {
				c.Error(err) // here, so that the status is known above
			}
			whole = true
			return nil
		}
	}
}

// entry is what the access log says of one request.
type entry struct {
	log    *slog.Logger
	m      *metrics
	ctx    context.Context
	known  *about
	start  time.Time
	method string
	route  string
	status int
	bytes  int64 // that Echo saw
	ip     string
}

func (a entry) write(whole bool) {
	took := time.Since(a.start)
	a.m.inFlight.Dec()
	a.m.observe(a.method, a.route, a.status, took)
	level := slog.LevelInfo
	if isHealth(a.route) {
		level = slog.LevelDebug
	}
	if !a.log.Enabled(a.ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("method", a.method),
		slog.String("route", a.route),
		slog.Int("status", a.status),
		slog.Int64("bytes", a.bytes+a.known.sent),
		slog.Float64("response_time_ms", float64(took.Microseconds())/1000),
		slog.String("request_id", a.known.id),
		slog.String("trace_id", telemetry.TraceID(telemetry.TraceParent(a.ctx))),
		slog.String("remote_ip", a.ip),
	}
	if !whole {
		attrs = append(attrs, slog.Bool("aborted", true))
	}
	a.log.LogAttrs(a.ctx, level, "request", append(attrs, a.known.attrs...)...)
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
