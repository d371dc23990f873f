package admit

import "github.com/prometheus/client_golang/prometheus"

func newInFlight(reg prometheus.Registerer) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "penstock_producer_in_flight_bytes",
		Help: "Bytes of request bodies being read and accepted.",
	})
	reg.MustRegister(g)
	return g
}
