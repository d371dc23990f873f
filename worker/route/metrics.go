package route

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	reg       prometheus.Registerer
	calls     *prometheus.GaugeVec
	picks     *prometheus.CounterVec
	throttles *prometheus.CounterVec
	up        *prometheus.GaugeVec
	breakers  *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer, pool string, members []*member) (*metrics, error) {
	labels := prometheus.Labels{"pool": pool}
	gauge := func(name, help string, by ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, by)
	}
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, []string{"backend"})
	}
	m := &metrics{
		reg:       reg,
		calls:     gauge("penstock_worker_backend_in_flight_calls", "Calls that a backend runs now.", "backend"),
		up:        gauge("penstock_worker_backend_up", "1 while a backend passes its health checks.", "backend"),
		breakers:  gauge("penstock_worker_breaker_state", "Breaker of a backend and model: 0 closed, 1 half open, 2 open.", "backend", "model"),
		picks:     counter("penstock_worker_backend_picks_total", "Calls given to a backend."),
		throttles: counter("penstock_worker_backend_throttles_total", "Times a backend asked for a pause."),
	}
	for _, b := range members {
		m.calls.WithLabelValues(b.Name)
		m.picks.WithLabelValues(b.Name)
		m.throttles.WithLabelValues(b.Name)
		m.healthy(b.Name, true)
	}
	var errs []error
	for _, c := range m.all() {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.calls, m.picks, m.throttles, m.up, m.breakers}
}

// unregister lets the same process run the pool again.
func (m *metrics) unregister() {
	for _, c := range m.all() {
		m.reg.Unregister(c)
	}
}

func (m *metrics) picked(name string)          { m.picks.WithLabelValues(name).Inc() }
func (m *metrics) throttled(name string)       { m.throttles.WithLabelValues(name).Inc() }
func (m *metrics) inFlight(name string, n int) { m.calls.WithLabelValues(name).Set(float64(n)) }

func (m *metrics) healthy(name string, yes bool) {
	v := 0.0
	if yes {
		v = 1
	}
	m.up.WithLabelValues(name).Set(v)
}

func (m *metrics) breakerOf(name, model string) prometheus.Gauge {
	return m.breakers.WithLabelValues(name, model)
}
