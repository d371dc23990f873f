package httpserver

import (
	"net/http"
	"net/http/pprof"
	"strings"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/telemetry"
)

// Health is the data of GET /v1/health: each check is "ok" or "failing".
type Health struct {
	Status string            `json:"status"` // ok, unavailable or draining
	Checks map[string]string `json:"checks"`
}

// mountHealth adds the probes to the API listener. They name what fails but not
// why: the reason may hold addresses, and is on the admin listener.
func (s *Server) mountHealth() {
	probe := func(check func() error) echo.HandlerFunc {
		return func(c echo.Context) error {
			if check() != nil {
				return c.String(http.StatusServiceUnavailable, "unavailable\n")
			}
			return c.String(http.StatusOK, "ok\n")
		}
	}
	s.echo.GET("/livez", probe(alive))
	s.echo.GET("/readyz", probe(s.ready.Err))
	s.echo.GET("/startupz", probe(s.ready.Started))
	s.echo.GET("/v1/health", s.health)
}

func (s *Server) health(c echo.Context) error {
	h, status := healthOf(&s.ready)
	return OK(c, status, h)
}

func healthOf(r *lifecycle.Readiness) (Health, int) {
	h := Health{Status: "ok", Checks: map[string]string{}}
	for _, check := range r.Checks() {
		h.Checks[check.Name] = "ok"
		if check.Err != nil {
			h.Checks[check.Name], h.Status = "failing", "unavailable"
		}
	}
	if r.Draining() {
		h.Status = "draining"
	}
	if h.Status != "ok" {
		return h, http.StatusServiceUnavailable
	}
	return h, http.StatusOK
}

// alive asks nothing of any dependency: a restart would not mend those. That a
// handler runs at all is the check.
func alive() error { return nil }

// newAdminMux serves what only operators may see.
func newAdminMux(ready *lifecycle.Readiness, reg prometheus.Registerer) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /livez", adminProbe(alive))
	mux.Handle("GET /readyz", adminProbe(ready.Err))
	mux.Handle("GET /startupz", adminProbe(ready.Started))
	if g, ok := reg.(prometheus.Gatherer); ok {
		mux.Handle("GET /metrics", telemetry.MetricsHandler(g))
	}
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// adminProbe answers with the reason.
func adminProbe(check func() error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		text := "ok\n"
		if err := check(); err != nil {
			text = strings.TrimSpace(err.Error()) + "\n"
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write([]byte(text)) // the prober went away
	})
}
