package ws

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
)

type metrics struct {
	sockets  prometheus.Gauge
	events   prometheus.Counter
	ended    *prometheus.CounterVec
	messages *prometheus.CounterVec
	errors   *prometheus.CounterVec
}

// How a socket ended: a closed set, registered at zero.
const (
	endClosed    = "closed"    // by the client
	endGone      = "gone"      // the client went away without a word
	endCut       = "cut"       // the client was too slow
	endRevoked   = "revoked"   // the client's key is not good any more
	endRefused   = "refused"   // the client's messages could not be read
	endReconnect = "reconnect" // the client was asked to come back
)

// opUnreadable counts messages without an op that we know.
const opUnreadable = "unreadable"

func newMetrics(reg prometheus.Registerer) *metrics {
	const ns = "penstock_producer_"
	m := &metrics{
		sockets:  prometheus.NewGauge(prometheus.GaugeOpts{Name: ns + "sockets", Help: "Open WebSockets."}),
		events:   prometheus.NewCounter(prometheus.CounterOpts{Name: ns + "socket_events_sent_total", Help: "Events sent on WebSockets."}),
		ended:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: ns + "sockets_total", Help: "WebSockets that ended, by how."}, []string{"outcome"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{Name: ns + "socket_messages_total", Help: "Messages of clients on WebSockets, by op."}, []string{"op"}),
		errors:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: ns + "socket_errors_total", Help: "Errors told on WebSockets, by fault code."}, []string{"reason"}),
	}
	for _, o := range []string{endClosed, endGone, endCut, endRevoked, endRefused, endReconnect} {
		m.ended.WithLabelValues(o)
	}
	ops, _ := api.Ops()
	for _, op := range append(ops, opUnreadable) {
		m.messages.WithLabelValues(string(op))
	}
	for _, code := range fault.Codes() {
		m.errors.WithLabelValues(string(code))
	}
	reg.MustRegister(m.sockets, m.events, m.ended, m.messages, m.errors)
	return m
}
