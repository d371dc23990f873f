//go:build integration

package eventlog_test

import (
	"os"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/eventlog/eventlogtest"
)

// TestOnRealRedis runs against the server named by PENSTOCK_TEST_REDIS, which
// it empties.
func TestOnRealRedis(t *testing.T) {
	eventlogtest.Run(t, func(t *testing.T) redis.UniversalClient {
		t.Helper()
		url := os.Getenv("PENSTOCK_TEST_REDIS")
		if url == "" {
			t.Skip("PENSTOCK_TEST_REDIS is not set")
		}
		opt, err := redis.ParseURL(url)
		if err != nil {
			t.Fatal(err)
		}
		opt.DB = 2 // packages are tested side by side: each has its own
		rdb := redis.NewClient(opt)
		t.Cleanup(func() { _ = rdb.Close() })
		return rdb
	})
}
