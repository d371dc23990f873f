package moderation

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/schema/fault"
)

// outcomeAnswered is of a call that was answered; others are told by their fault.
const outcomeAnswered = "answered"

type metrics struct {
	calls    *prometheus.CounterVec
	duration prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	const ns = "penstock_producer_moderation_"
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{Name: ns + "calls_total", Help: "Calls of /v1/moderations, by what came of them."}, []string{"outcome"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: ns + "duration_seconds", Help: "Time the filter took to answer.", Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
	}
	m.calls.WithLabelValues(outcomeAnswered)
	for _, c := range []fault.Code{fault.Rejected, fault.Throttled, fault.Unavailable, fault.Timeout} {
		m.calls.WithLabelValues(string(c))
	}
	reg.MustRegister(m.calls, m.duration)
	return m
}
