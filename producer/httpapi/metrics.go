package httpapi

import "github.com/prometheus/client_golang/prometheus"

// Outcomes of a call of the OpenAI API that was accepted: a closed set,
// registered at zero.
const (
	outcomeAnswered    = "answered"    // whole
	outcomeFailed      = "failed"      // the task did not succeed, or its end cannot be told
	outcomeInterrupted = "interrupted" // the answer began anew after some of it was shown
	outcomeLate        = "late"        // the client's patience ended first
	outcomeLeft        = "left"        // the client went away
)

type metrics struct {
	calls     *prometheus.CounterVec
	joined    prometheus.Counter
	cancelled prometheus.Counter
	streams   prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	const ns = "penstock_producer_openai_"
	m := &metrics{
		calls:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: ns + "calls_total", Help: "Accepted calls of the OpenAI API, by how they ended."}, []string{"outcome"}),
		joined:    prometheus.NewCounter(prometheus.CounterOpts{Name: ns + "retries_joined_total", Help: "Retries that joined the task of the call they repeat."}),
		cancelled: prometheus.NewCounter(prometheus.CounterOpts{Name: ns + "left_tasks_cancelled_total", Help: "Tasks cancelled because their client went away."}),
		streams:   prometheus.NewGauge(prometheus.GaugeOpts{Name: ns + "streams", Help: "Open streams of the OpenAI API."}),
	}
	for _, o := range []string{outcomeAnswered, outcomeFailed, outcomeInterrupted, outcomeLate, outcomeLeft} {
		m.calls.WithLabelValues(o)
	}
	reg.MustRegister(m.calls, m.joined, m.cancelled, m.streams)
	return m
}
