package backlog

import "github.com/prometheus/client_golang/prometheus"

type metrics struct{ old, lost prometheus.Gauge }

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		old: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "penstock_producer_backlog_old_partitions",
			Help: "Partitions whose oldest unsettled record is so old that new tasks are refused.",
		}),
		lost: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "penstock_producer_backlog_lost_partitions",
			Help: "Partitions whose committed offset lies below the start of the log: records were dropped unsettled.",
		}),
	}
	reg.MustRegister(m.old, m.lost)
	return m
}
