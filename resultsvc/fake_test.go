//go:build !integration

package resultsvc_test

import (
	"testing"

	"github.com/penstock/penstock/resultsvc"
)

// onRedis leaves a service on the Redis in the process.
func onRedis(*testing.T) func(*resultsvc.Config) { return nil }
