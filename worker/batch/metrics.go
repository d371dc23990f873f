package batch

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the batches of one pool. Safe for concurrent use.
type Metrics struct {
	size    prometheus.Histogram
	waited  prometheus.Histogram
	reasons *prometheus.CounterVec
}

// NewMetrics registers the metrics of a pool.
func NewMetrics(reg prometheus.Registerer, pool string) (*Metrics, error) {
	labels := prometheus.Labels{"pool": pool}
	m := &Metrics{
		size: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "penstock_worker_batch_tasks", Help: "Tasks in a batch.", ConstLabels: labels,
			Buckets: []float64{1, 2, 4, 8, 16, 24, 32, 64, 128},
		}),
		waited: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "penstock_worker_batch_wait_seconds", Help: "How long the first task of a batch waited for the batch to go.", ConstLabels: labels,
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30},
		}),
		reasons: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "penstock_worker_batches_total", Help: "Batches by why they were cut.", ConstLabels: labels,
		}, []string{"reason"}),
	}
	for _, r := range Reasons() {
		m.reasons.WithLabelValues(string(r))
	}
	for _, c := range []prometheus.Collector{m.size, m.waited, m.reasons} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Cut counts a batch.
func (m *Metrics) Cut(size int, reason Reason, waited time.Duration) {
	m.size.Observe(float64(size))
	m.waited.Observe(waited.Seconds())
	m.reasons.WithLabelValues(string(reason)).Inc()
}
