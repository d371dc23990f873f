package project

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	records    *prometheus.CounterVec
	lag        *prometheus.GaugeVec
	rebuilds   prometheus.Counter
	partitions prometheus.Gauge
}

const (
	outcomeApplied     = "applied"
	outcomeUndecodable = "undecodable"
)

func newMetrics(reg prometheus.Registerer) *metrics {
	const ns = "penstock_resultsvc_projector_"
	m := &metrics{
		records:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: ns + "records_total", Help: "Results records read, by outcome."}, []string{"outcome"}),
		lag:        prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: ns + "lag_records", Help: "Results records not applied yet, by partition."}, []string{"partition"}),
		rebuilds:   prometheus.NewCounter(prometheus.CounterOpts{Name: ns + "rebuilds_total", Help: "Partitions that were filled again from the start of the log."}),
		partitions: prometheus.NewGauge(prometheus.GaugeOpts{Name: ns + "partitions", Help: "Results partitions this process projects."}),
	}
	for _, o := range []string{outcomeApplied, outcomeUndecodable} {
		m.records.WithLabelValues(o)
	}
	reg.MustRegister(m.records, m.lag, m.rebuilds, m.partitions)
	return m
}

func label(partition int32) string { return strconv.Itoa(int(partition)) }
