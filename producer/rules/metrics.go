package rules

import "github.com/prometheus/client_golang/prometheus"

func newFailures(reg prometheus.Registerer) *prometheus.CounterVec {
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "penstock_producer_rule_failures_total",
		Help: "Routing expressions that failed or cost too much, and so did not match.",
	}, []string{"rule"})
	reg.MustRegister(failures)
	return failures
}
