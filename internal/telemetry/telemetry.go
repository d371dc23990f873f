// Package telemetry makes what a process says about itself: its logger, its
// metrics registry, its build, and the W3C trace context that ties a task's
// steps together. Nothing here is global: each is made once and passed on.
package telemetry

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// LogConfig is the operator's choice of what is logged; embed it in a service's
// configuration.
type LogConfig struct {
	Level  string `koanf:"log_level" usage:"debug, info, warn or error"`
	Format string `koanf:"log_format" usage:"json or text"`
}

// DefaultLogConfig logs JSON from info up.
func DefaultLogConfig() LogConfig { return LogConfig{Level: "info", Format: "json"} }

// Open returns the logger.
func (c LogConfig) Open(w io.Writer) (*slog.Logger, error) { return NewLogger(w, c.Level, c.Format) }

// NewLogger returns a logger of the given level (debug, info, warn, error) and
// format (json, text).
func NewLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level: want debug, info, warn or error, got %q", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	default:
		return nil, fmt.Errorf("log format: want json or text, got %q", format)
	}
}

// NewRegistry returns a registry with the Go runtime's and the process's
// metrics and penstock_build_info, which is always 1.
func NewRegistry(service string) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	b := ReadBuild()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "penstock_build_info",
		Help:        "What is running; the value is always 1.",
		ConstLabels: prometheus.Labels{"service": service, "version": b.Version, "commit": b.Commit, "go_version": b.Go},
	})
	info.Set(1)
	reg.MustRegister(info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

// MetricsHandler serves a registry in the Prometheus and OpenMetrics formats.
func MetricsHandler(g prometheus.Gatherer) http.Handler {
	return promhttp.HandlerFor(g, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// Build is what the Go toolchain recorded in the binary.
type Build struct {
	Version string // module version, "(devel)" for a plain build
	Commit  string // git revision, with "-dirty" if the tree was; "unknown" without git
	Go      string
}

// ReadBuild reads the running binary's own build record.
func ReadBuild() Build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return Build{Version: "unknown", Commit: "unknown", Go: "unknown"}
	}
	return buildOf(info)
}

func buildOf(info *debug.BuildInfo) Build {
	b := Build{Version: info.Main.Version, Commit: "unknown", Go: info.GoVersion}
	if b.Version == "" {
		b.Version = "(devel)"
	}
	dirty := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.Commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	b.Commit += dirty
	return b
}
