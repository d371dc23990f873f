package grpcapi

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

// metrics counts calls by method and status code. A watch counts when it ends,
// and its duration is its life.
type metrics struct {
	calls    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	watchers prometheus.Gauge
	events   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	const ns = "penstock_producer_rpc_"
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: ns + "calls_total", Help: "gRPC calls answered, by method and status code.",
		}, []string{"method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: ns + "call_duration_seconds", Help: "Time from a call's headers to its status.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"method"}),
		watchers: prometheus.NewGauge(prometheus.GaugeOpts{Name: ns + "watchers", Help: "Open Watch calls."}),
		events:   prometheus.NewCounter(prometheus.CounterOpts{Name: ns + "events_sent_total", Help: "Events sent to watchers."}),
	}
	for method := range scopes() {
		m.calls.WithLabelValues(method, codes.OK.String())
	}
	reg.MustRegister(m.calls, m.duration, m.watchers, m.events)
	return m
}

// observe counts a call.
func (m *metrics) observe(method string, code codes.Code, took time.Duration) {
	m.calls.WithLabelValues(method, code.String()).Inc()
	m.duration.WithLabelValues(method).Observe(took.Seconds())
}
