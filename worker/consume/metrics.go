package consume

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one group. The group's name is the pool's, a closed set.
type metrics struct {
	commits         *prometheus.CounterVec
	fetchErrors     prometheus.Counter
	lostRecords     prometheus.Counter
	rewinds         prometheus.Counter
	metadataIgnored prometheus.Counter
	pauses          prometheus.Counter
	partitions      prometheus.Gauge
	all             []prometheus.Collector
	reg             prometheus.Registerer
}

func newMetrics(reg prometheus.Registerer, group string, g *Group) *metrics {
	labels := prometheus.Labels{"group": group}
	m := &metrics{reg: reg}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels})
		m.all = append(m.all, c)
		return c
	}
	gauge := func(name, help string, value func() float64) {
		m.all = append(m.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value))
	}
	m.commits = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "penstock_worker_commits_total", Help: "Offset commits by outcome.", ConstLabels: labels,
	}, []string{"outcome"})
	m.partitions = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "penstock_worker_partitions", Help: "Partitions assigned to this worker.", ConstLabels: labels,
	})
	m.all = append(m.all, m.commits, m.partitions)
	m.fetchErrors = counter("penstock_worker_fetch_errors_total", "Errors of partition fetches.")
	m.lostRecords = counter("penstock_worker_lost_records_total", "Records deleted by retention before they were read. Any is an alarm.")
	m.rewinds = counter("penstock_worker_rewinds_total", "Times a partition's log went back.")
	m.metadataIgnored = counter("penstock_worker_commit_metadata_ignored_total", "Restored commits whose bitmap could not be trusted.")
	m.pauses = counter("penstock_worker_pauses_total", "Partitions paused for a limit.")
	gauge("penstock_worker_lag_records", "Records between the settled watermarks and the logs' ends.", func() float64 {
		n, _ := g.Lag()
		return float64(n)
	})
	gauge("penstock_worker_oldest_task_age_seconds", "Age of the oldest unsettled record in flight.", func() float64 {
		if _, at := g.Lag(); !at.IsZero() {
			return time.Since(at).Seconds()
		}
		return 0
	})
	gauge("penstock_worker_in_flight_records", "Records delivered and not settled.", func() float64 { return float64(g.InFlight()) })
	for _, outcome := range []string{"ok", "error"} {
		m.commits.WithLabelValues(outcome)
	}
	reg.MustRegister(m.all...)
	return m
}

// unregister lets the same process open the group again.
func (m *metrics) unregister() {
	for _, c := range m.all {
		m.reg.Unregister(c)
	}
}

func (m *metrics) committed(err error) {
	if err != nil {
		m.commits.WithLabelValues("error").Inc()
		return
	}
	m.commits.WithLabelValues("ok").Inc()
}
