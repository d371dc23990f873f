//go:build integration

package redisclient_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/redisclient"
)

func TestARealServerIsUnderstood(t *testing.T) {
	t.Parallel()
	url := os.Getenv("PENSTOCK_TEST_REDIS")
	if url == "" {
		t.Skip("PENSTOCK_TEST_REDIS is not set: run make test")
	}
	cfg := redisclient.DefaultConfig()
	cfg.URL = config.Secret(url)
	client, err := redisclient.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	key := "penstock:test:redisclient:" + t.Name()
	defer client.Del(t.Context(), key)
	id, err := client.XAdd(t.Context(), &redis.XAddArgs{Stream: key, ID: "1-1", Values: []any{"e", "x"}}).Result()
	if err != nil || id != "1-1" {
		t.Fatalf("got %q, %v", id, err)
	}
	t.Run("a blocking read may outlast the read timeout", func(t *testing.T) {
		start := time.Now()
		err := client.XRead(t.Context(), &redis.XReadArgs{Streams: []string{key, "$"}, Block: 1500 * time.Millisecond}).Err()
		if !errors.Is(err, redis.Nil) || time.Since(start) < 1400*time.Millisecond {
			t.Errorf("got %v after %v, want nothing after 1.5 s", err, time.Since(start))
		}
	})
}
