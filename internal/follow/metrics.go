package follow

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	watched    prometheus.Gauge
	watchers   prometheus.Gauge
	reconnects prometheus.Counter
	repairs    *prometheus.CounterVec
	tailed     *prometheus.CounterVec
}

// Outcomes of a repair and ways of a tailed terminal: closed sets, registered
// at zero.
const (
	repairFilled, repairLost       = "filled", "lost"
	tailConfirmed, tailYoung       = "confirmed", "young"
	tailByRedis, tailLeftToLookups = "redis_first", "left_to_heartbeat"
)

func newMetrics(reg prometheus.Registerer, service string) *metrics {
	ns := "penstock_" + service + "_"
	m := &metrics{
		watched:    prometheus.NewGauge(prometheus.GaugeOpts{Name: ns + "watched_tasks", Help: "Tasks this process is subscribed to."}),
		watchers:   prometheus.NewGauge(prometheus.GaugeOpts{Name: ns + "watchers", Help: "Watches of tasks by clients and waiting calls."}),
		reconnects: prometheus.NewCounter(prometheus.CounterOpts{Name: ns + "live_reconnects_total", Help: "Times the live connection to Redis was made again."}),
		repairs:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: ns + "event_repairs_total", Help: "Holes in live events, by whether the stream had them."}, []string{"outcome"}),
		tailed:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: ns + "tailed_terminals_total", Help: "Terminals of watched tasks seen at the log's end, by what became of them."}, []string{"outcome"}),
	}
	for _, o := range []string{repairFilled, repairLost} {
		m.repairs.WithLabelValues(o)
	}
	for _, o := range []string{tailConfirmed, tailYoung, tailByRedis, tailLeftToLookups} {
		m.tailed.WithLabelValues(o)
	}
	reg.MustRegister(m.watched, m.watchers, m.reconnects, m.repairs, m.tailed)
	return m
}
