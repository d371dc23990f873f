package recall

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/convstore"
)

type metrics struct {
	recalls  *prometheus.CounterVec
	duration prometheus.Histogram
	turns    prometheus.Histogram
	lost     prometheus.Counter
}

// Outcomes of a recall.
const (
	outcomeOK    = "ok"
	outcomeLate  = "late"  // what must be there was not in time
	outcomeError = "error" // Redis, Kafka or the blob store did not answer
)

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		recalls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "penstock_worker_recalls_total", Help: "Readings of a session's memory before a try: ok; late (its turns were not there in time) or error, and the task waits.",
		}, []string{"outcome"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "penstock_worker_recall_duration_seconds", Help: "Time that a reading of a session's memory took, waits included.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
		turns: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "penstock_worker_recalled_turns", Help: "Turns that a task was given beside its own.",
			Buckets: []float64{0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000},
		}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "penstock_worker_recall_lost_turns_total", Help: "Turns that were left out because their content is lost.",
		}),
	}
	reg.MustRegister(m.recalls, m.duration, m.turns, m.lost)
	for _, o := range []string{outcomeOK, outcomeLate, outcomeError} {
		m.recalls.WithLabelValues(o)
	}
	return m
}

func (m *metrics) recalled(err error, took time.Duration) {
	m.recalls.WithLabelValues(outcomeOf(err)).Inc()
	m.duration.Observe(took.Seconds())
}

func outcomeOf(err error) string {
	switch {
	case err == nil:
		return outcomeOK
	case errors.Is(err, errLate), errors.Is(err, context.Canceled), errors.Is(err, convstore.ErrRebuilding):
		return outcomeLate
	default:
		return outcomeError
	}
}
