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

func newMetrics(topic string, reg prometheus.Registerer) *metrics {
	reg = prometheus.WrapRegistererWith(prometheus.Labels{"topic": topic}, reg)
	const ns = "penstock_resultsvc_projector_"
	m := &metrics{
		records:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: ns + "records_total", Help: "Records read, by topic and outcome."}, []string{"outcome"}),
		lag:        prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: ns + "lag_records", Help: "Records not applied yet, by topic and partition."}, []string{"partition"}),
		rebuilds:   prometheus.NewCounter(prometheus.CounterOpts{Name: ns + "rebuilds_total", Help: "Partitions that were filled again from the start of the log."}),
		partitions: prometheus.NewGauge(prometheus.GaugeOpts{Name: ns + "partitions", Help: "Partitions this process projects, by topic."}),
	}
	for _, o := range []string{outcomeApplied, outcomeUndecodable} {
		m.records.WithLabelValues(o)
	}
	reg.MustRegister(m.records, m.lag, m.rebuilds, m.partitions)
	return m
}

func label(partition int32) string { return strconv.Itoa(int(partition)) }
