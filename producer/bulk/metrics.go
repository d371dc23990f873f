package bulk

import "github.com/prometheus/client_golang/prometheus"

// metrics of the package. Every label comes from a closed set, at zero from the
// start.
type metrics struct {
	uploaded    prometheus.Counter
	undecodable prometheus.Counter
	inFlight    prometheus.Gauge
	lines       *prometheus.CounterVec
	segments    prometheus.Counter
	pauses      prometheus.Counter
	stalls      prometheus.Counter
	ended       *prometheus.CounterVec
}

// Outcomes of lines.
const (
	lineCompleted, lineFailed, lineExpired, lineCancelled = "completed", "failed", "expired", "cancelled"
)

func newMetrics(reg prometheus.Registerer, g *ledger) *metrics {
	const ns = "penstock_producer_bulk_"
	m := &metrics{
		uploaded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: ns + "uploaded_bytes_total", Help: "Content of the files that clients sent.",
		}),
		undecodable: prometheus.NewCounter(prometheus.CounterOpts{
			Name: ns + "undecodable_entries_total", Help: "Entries of penstock.control about files and batches that could not be read.",
		}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: ns + "in_flight_tasks", Help: "Lines of batches whose task is accepted and not seen to end.",
		}),
		lines: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: ns + "lines_total", Help: "Lines whose outcome is stored, by what it is.",
		}, []string{"outcome"}),
		segments: prometheus.NewCounter(prometheus.CounterOpts{
			Name: ns + "segments_total", Help: "Pieces of output that were stored.",
		}),
		pauses: prometheus.NewCounter(prometheus.CounterOpts{
			Name: ns + "pauses_total", Help: "Times that lines were kept back because the door asked for it: a rate, a backlog, Kafka.",
		}),
		stalls: prometheus.NewCounter(prometheus.CounterOpts{
			Name: ns + "stalls_total", Help: "Times that a batch stood still because the blob store or Kafka did not answer.",
		}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: ns + "batches_ended_total", Help: "Batches that this process brought to an end, by which.",
		}, []string{"status"}),
	}
	for _, outcome := range []string{lineCompleted, lineFailed, lineExpired, lineCancelled} {
		m.lines.WithLabelValues(outcome)
	}
	reg.MustRegister(m.uploaded, m.undecodable, m.inFlight, m.lines, m.segments, m.pauses, m.stalls, m.ended,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: ns + "files", Help: "Files that have not expired, of all tenants."},
			func() float64 { files, _ := g.size(); return float64(files) }))
	for _, s := range Statuses() {
		if s.Ended() {
			m.ended.WithLabelValues(string(s))
		}
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: ns + "batches", Help: "Batches that are remembered, by status.", ConstLabels: prometheus.Labels{"status": string(s)},
		}, func() float64 { _, batches := g.size(); return float64(batches[s]) }))
	}
	return m
}

// collected counts a segment.
func (m *metrics) collected(s *segment) {
	m.segments.Inc()
	for outcome, n := range map[string]int{
		lineCompleted: s.Counts.Completed, lineFailed: s.Counts.Failed, lineExpired: s.Counts.Expired, lineCancelled: s.Counts.Cancelled,
	} {
		m.lines.WithLabelValues(outcome).Add(float64(n))
	}
}
