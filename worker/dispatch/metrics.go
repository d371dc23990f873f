package dispatch

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/schema/deadletter"
)

// metrics of one pool's loop.
type metrics struct {
	waiting        prometheus.Gauge
	inFlight       prometheus.Gauge
	joined         prometheus.Counter
	parked         prometheus.Counter
	publishRetries prometheus.Counter
	floods         prometheus.Counter
	paused         prometheus.Gauge
	dying          prometheus.Gauge
	retries        *prometheus.CounterVec
	deadLetters    *prometheus.CounterVec
	settled        *prometheus.CounterVec
	all            []prometheus.Collector
	reg            prometheus.Registerer
}

func newMetrics(reg prometheus.Registerer, pool string) *metrics {
	labels := prometheus.Labels{"pool": pool}
	m := &metrics{reg: reg}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels})
		m.all = append(m.all, c)
		return c
	}
	vec := func(name, help, label string, values ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, []string{label})
		for _, v := range values {
			c.WithLabelValues(v)
		}
		m.all = append(m.all, c)
		return c
	}
	m.waiting = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "penstock_worker_waiting_tasks", Help: "Tasks in the scheduler.", ConstLabels: labels,
	})
	m.inFlight = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "penstock_worker_in_flight_tasks", Help: "Tasks delivered and not settled.", ConstLabels: labels,
	})
	m.paused = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "penstock_worker_flood_paused", Help: "1 while the pool is paused because too many tasks died of one fault. An alarm.", ConstLabels: labels,
	})
	m.dying = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "penstock_worker_dying_tasks", Help: "Tasks that wait for the end of a flood instead of being buried.", ConstLabels: labels,
	})
	m.all = append(m.all, m.waiting, m.inFlight, m.paused, m.dying)
	m.floods = counter("penstock_worker_floods_total", "Times the pool was paused because too many tasks died of one fault.")
	m.joined = counter("penstock_worker_joined_records_total", "Records of a task that was in flight already.")
	m.parked = counter("penstock_worker_parked_tasks_total", "Heads moved to a retry tier because they held up a partition.")
	m.publishRetries = counter("penstock_worker_publish_retries_total", "Outcomes that had to be written again.")
	m.retries = vec("penstock_worker_retries_total", "Tasks that run again: after a wait in memory, in a tier, for the retry budget, or free of charge.", "where", "memory", "tier", "budget", "free")
	m.deadLetters = vec("penstock_worker_dead_letters_total", "Tasks given up.", "disposition",
		string(deadletter.Exhausted), string(deadletter.Undecodable), string(deadletter.SuspectedKiller), string(deadletter.Oversize))
	m.settled = vec("penstock_worker_settled_records_total", "Records that left the worker: published, moot (ended elsewhere) or given back unsettled.", "how",
		"published", "moot", "given_back")
	reg.MustRegister(m.all...)
	return m
}

// unregister lets the same process open the pool again.
func (m *metrics) unregister() {
	for _, c := range m.all {
		m.reg.Unregister(c)
	}
}
