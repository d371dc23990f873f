package redrive

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the package. Every label comes from a closed set, at zero from
// the start.
type metrics struct {
	outcomes    *prometheus.CounterVec
	evicted     prometheus.Counter
	undecodable *prometheus.CounterVec
	stops       prometheus.Counter
	aborts      prometheus.Counter
	took        prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, held func() float64, complete func() float64, jobs func(JobState) float64) *metrics {
	m := &metrics{
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "penstock_worker_redrive_letters_total",
			Help: "Dead letters that a redrive job of this worker dealt with, by outcome and reason.",
		}, []string{"outcome", "reason"}),
		evicted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "penstock_worker_redrive_index_evicted_total",
			Help: "Dead letters that fell out of the index because newer ones filled it: they are on the topic, but no filter finds them.",
		}),
		undecodable: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "penstock_worker_redrive_undecodable_records_total",
			Help: "Records whose lineage or control entry could not be read.",
		}, []string{"topic"}),
		stops: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "penstock_worker_redrive_job_stops_total",
			Help: "Times a job paused itself because Kafka, Redis or the projection did not answer.",
		}),
		aborts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "penstock_worker_redrive_job_aborts_total",
			Help: "Times a job ended itself because too many of its tasks ended badly again.",
		}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "penstock_worker_redrive_letter_duration_seconds",
			Help:    "Time to put one dead letter back to work, all four steps.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
	}
	m.outcomes.WithLabelValues(string(Redriven), "")
	for _, r := range reasons() {
		m.outcomes.WithLabelValues(string(Skipped), string(r))
	}
	for _, t := range []string{"dead_letters", "control"} {
		m.undecodable.WithLabelValues(t)
	}
	reg.MustRegister(m.outcomes, m.evicted, m.undecodable, m.stops, m.aborts, m.took,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "penstock_worker_redrive_index_letters", Help: "Dead letters in the index.",
		}, held),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "penstock_worker_redrive_index_complete_ratio", Help: "1 once the index was read up to the end found at the start, else 0.",
		}, complete))
	for _, s := range jobStates() {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "penstock_worker_redrive_jobs", Help: "Redrive jobs by state.",
			ConstLabels: prometheus.Labels{"state": string(s)},
		}, func() float64 { return jobs(s) }))
	}
	return m
}
