package ingest

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/schema/fault"
)

// Outcomes of a submit that is no failure; every other outcome is a fault code.
const (
	outcomeAccepted = "accepted"
	outcomeRepeated = "repeated"
)

// Metrics count what the ingress does.
type Metrics struct {
	tasks    *prometheus.CounterVec
	duration prometheus.Histogram
	dropped  prometheus.Counter
	memory   prometheus.Counter
	done     map[string]prometheus.Counter // by outcome; read only after New
}

// NewMetrics registers the metrics, each outcome at zero.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		tasks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "penstock_producer_tasks_total",
			Help: "Submitted tasks by outcome: accepted, repeated, or the fault code they were refused with.",
		}, []string{"outcome"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "penstock_producer_accept_duration_seconds",
			Help:    "Time from a decoded submit to the acknowledgement of its record.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10},
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "penstock_producer_hints_dropped_total",
			Help: "Status hints that Redis did not take; polls say pending instead of queued.",
		}),
		memory: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "penstock_producer_idempotency_failures_total",
			Help: "Questions about an idempotency key, or the queue of an ordering key, that Redis did not answer.",
		}),
		done: make(map[string]prometheus.Counter),
	}
	reg.MustRegister(m.tasks, m.duration, m.dropped, m.memory)
	outcomes := []string{outcomeAccepted, outcomeRepeated}
	for _, c := range fault.Codes() {
		outcomes = append(outcomes, string(c))
	}
	for _, o := range outcomes {
		m.done[o] = m.tasks.WithLabelValues(o)
	}
	return m
}

// accepted counts one submit that reached the intake.
func (m *Metrics) accepted(r Receipt, err error, took time.Duration) {
	switch {
	case err != nil:
		m.Refused(err)
	case r.Repeat:
		m.done[outcomeRepeated].Inc()
	default:
		m.done[outcomeAccepted].Inc()
		m.duration.Observe(took.Seconds())
	}
}

// Refused counts a submit that failed, also one that never reached the intake.
func (m *Metrics) Refused(err error) {
	if c, ok := m.done[string(CodeOf(err))]; ok {
		c.Inc()
	}
}

// CodeOf returns the fault code of an error of the ingress.
func CodeOf(err error) fault.Code {
	if v, ok := errors.AsType[*validate.Error](err); ok {
		return v.Code
	}
	return fault.CodeOf(err)
}

func (m *Metrics) hintsDropped(n int) { m.dropped.Add(float64(n)) }

func (m *Metrics) memoryFailed() { m.memory.Inc() }
