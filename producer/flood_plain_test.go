//go:build !faults

package producer_test

// The flood in the small, on a broker and a store in this process.
const (
	floodOnServers = false
	floodKeys      = 20
	floodCallers   = 20
)
