//go:build faults

package producer_test

// The flood of the fault matrix (F21), on the Kafka and Redis of the environment.
const (
	floodOnServers = true
	floodKeys      = 1000
	floodCallers   = 100
)
