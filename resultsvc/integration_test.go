//go:build integration

package resultsvc_test

import (
	"os"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/resultsvc"
)

// onRedis puts a service on the server named by PENSTOCK_TEST_REDIS, and empties
// it.
func onRedis(t *testing.T) func(*resultsvc.Config) {
	t.Helper()
	url := os.Getenv("PENSTOCK_TEST_REDIS")
	if url == "" {
		t.Skip("PENSTOCK_TEST_REDIS is not set")
	}
	return func(c *resultsvc.Config) {
		c.Redis.URL = config.Secret(strings.TrimSuffix(url, "/0") + "/4") // packages are tested side by side: each has its own
		rdb, err := redisclient.New(c.Redis)
		if err != nil {
			t.Fatal(err)
		}
		defer rdb.Close()
		if err := rdb.FlushDB(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
}
