package sweep

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	tasks   *prometheus.CounterVec
	scanned prometheus.Counter
}

const (
	outcomeExpired = "expired"
	outcomeEnded   = "ended"
	outcomeFailed  = "failed"
)

func newMetrics(reg prometheus.Registerer) *metrics {
	const ns = "penstock_producer_sweeper_"
	m := &metrics{
		tasks:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: ns + "tasks_total", Help: "Tasks past their deadline: expired by us, ended before, or failed to be written and tried again."}, []string{"outcome"}),
		scanned: prometheus.NewCounter(prometheus.CounterOpts{Name: ns + "scanned_tasks_total", Help: "Unsettled tasks read from the log to index their deadlines."}),
	}
	for _, o := range []string{outcomeExpired, outcomeEnded, outcomeFailed} {
		m.tasks.WithLabelValues(o)
	}
	reg.MustRegister(m.tasks, m.scanned)
	return m
}
