//go:build integration

package repeat_test

import (
	"os"
	"testing"

	"github.com/redis/go-redis/v9"
)

func TestOnRealRedis(t *testing.T) {
	url := os.Getenv("PENSTOCK_TEST_REDIS")
	if url == "" {
		t.Skip("PENSTOCK_TEST_REDIS is not set")
	}
	opts, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(opts)
	t.Cleanup(func() { _ = client.Close() })
	if err := client.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	suite(t, client)
}
