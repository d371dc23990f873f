package sse

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	subscribers prometheus.Gauge
	events      prometheus.Counter
	streams     *prometheus.CounterVec
}

// How a stream ended: a closed set, registered at zero.
const (
	endWhole     = "whole"     // every task's terminal was sent
	endGone      = "gone"      // the client went away
	endCut       = "cut"       // the client was too slow
	endRevoked   = "revoked"   // the client's key is not good any more
	endReconnect = "reconnect" // the client was asked to come back
	endRetry     = "retry"     // trouble at a reconnect: asked to come back at once
)

func newMetrics(reg prometheus.Registerer) *metrics {
	const ns = "penstock_resultsvc_"
	m := &metrics{
		subscribers: prometheus.NewGauge(prometheus.GaugeOpts{Name: ns + "subscribers", Help: "Open event streams."}),
		events:      prometheus.NewCounter(prometheus.CounterOpts{Name: ns + "events_sent_total", Help: "Events sent on event streams."}),
		streams:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: ns + "streams_total", Help: "Event streams that ended, by how."}, []string{"outcome"}),
	}
	for _, o := range []string{endWhole, endGone, endCut, endRevoked, endReconnect, endRetry} {
		m.streams.WithLabelValues(o)
	}
	reg.MustRegister(m.subscribers, m.events, m.streams)
	return m
}
