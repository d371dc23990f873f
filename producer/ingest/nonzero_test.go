package ingest_test

import dto "github.com/prometheus/client_model/go"

// Gather drops every counter that is zero.
func (g nonZero) Gather() ([]*dto.MetricFamily, error) {
	families, err := g.Gatherer.Gather()
	for _, f := range families {
		kept := f.Metric[:0]
		for _, m := range f.Metric {
			if m.Counter == nil || m.Counter.GetValue() != 0 {
				kept = append(kept, m)
			}
		}
		f.Metric = kept
	}
	return families, err
}
