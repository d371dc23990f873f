package webhook

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/schema/webhook"
)

type metrics struct {
	attempts   *prometheus.CounterVec
	duration   prometheus.Histogram
	settled    *prometheus.CounterVec
	refused    prometheus.Counter
	entries    prometheus.Gauge
	pending    prometheus.Gauge
	bytes      prometheus.Gauge
	late       prometheus.Gauge
	resting    prometheus.Gauge
	partitions prometheus.Gauge
	replaying  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	const ns = "penstock_resultsvc_webhook_"
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: ns + name, Help: help})
	}
	m := &metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: ns + "attempts_total", Help: "Calls of receivers, by outcome."}, []string{"outcome"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: ns + "attempt_duration_seconds", Help: "How long receivers took to answer, or not to.",
			Buckets: []float64{.01, .03, .1, .3, 1, 3, 10, 15},
		}),
		settled:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: ns + "settled_total", Help: "Deliveries that are over, by how they ended."}, []string{"state"}),
		refused:    prometheus.NewCounter(prometheus.CounterOpts{Name: ns + "refused_total", Help: "Registrations there was no room for: their tasks end untold unless another process takes their partition. An alarm."}),
		entries:    gauge("entries", "Tasks whose webhooks this process keeps."),
		pending:    gauge("pending_deliveries", "Deliveries that are not settled."),
		bytes:      gauge("pending_bytes", "Size of the events of deliveries that are not settled."),
		late:       gauge("late_seconds", "For how long the oldest delivery that is due waits for its attempt."),
		resting:    gauge("resting_hosts", "Receivers that are left alone after failures in a row."),
		partitions: gauge("partitions", "Partitions of webhooks that this process owns."),
		replaying:  gauge("replaying_partitions", "Of these, those it still reads from their start."),
	}
	for _, o := range webhook.Outcomes() {
		m.attempts.WithLabelValues(string(o))
	}
	for _, s := range webhook.States() {
		if s != webhook.Pending {
			m.settled.WithLabelValues(string(s))
		}
	}
	reg.MustRegister(m.attempts, m.duration, m.settled, m.refused, m.entries, m.pending, m.bytes, m.late, m.resting, m.partitions, m.replaying)
	return m
}
