//go:build integration

package follow_test

import (
	"os"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// openRedis returns the server named by PENSTOCK_TEST_REDIS, and empties it.
func openRedis(t *testing.T) (*redis.Options, *miniredis.Miniredis) {
	t.Helper()
	url := os.Getenv("PENSTOCK_TEST_REDIS")
	if url == "" {
		t.Skip("PENSTOCK_TEST_REDIS is not set")
	}
	opt, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	opt.DB = 3 // packages are tested side by side: each has its own
	rdb := redis.NewClient(opt)
	defer rdb.Close()
	if err := rdb.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	return opt, nil
}
