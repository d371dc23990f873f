//go:build !integration

package follow_test

import (
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

func openRedis(t *testing.T) (*redis.Options, *miniredis.Miniredis) {
	t.Helper()
	mr := miniredis.RunT(t)
	return &redis.Options{Addr: mr.Addr()}, mr
}
