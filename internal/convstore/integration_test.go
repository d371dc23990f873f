//go:build integration

package convstore_test

import (
	"os"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/convstore/convstoretest"
)

// TestOnRealRedis uses the server named by PENSTOCK_TEST_REDIS, and empties it.
func TestOnRealRedis(t *testing.T) {
	url := os.Getenv("PENSTOCK_TEST_REDIS")
	if url == "" {
		t.Skip("PENSTOCK_TEST_REDIS is not set")
	}
	convstoretest.Run(t, func(t *testing.T) redis.UniversalClient {
		t.Helper()
		opt, err := redis.ParseURL(url)
		if err != nil {
			t.Fatal(err)
		}
		opt.DB = 9 // packages are tested side by side: each has its own
		rdb := redis.NewClient(opt)
		t.Cleanup(func() { _ = rdb.Close() })
		return rdb
	})
}
