//go:build integration

package resultsvc_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/resultsvc"
	"github.com/penstock/penstock/schema/task"
)

// BenchmarkStreams measures tasks brought to completion over 64 streams of 16
// tasks each: Kafka in the process, the Redis named by PENSTOCK_TEST_REDIS.
func BenchmarkStreams(b *testing.B) {
	url := os.Getenv("PENSTOCK_TEST_REDIS")
	if url == "" {
		b.Skip("PENSTOCK_TEST_REDIS is not set")
	}
	s := setup(b, func(c *resultsvc.Config) { c.Redis.URL = config.Secret(strings.TrimSuffix(url, "/0") + "/4") })
	if err := s.rdb.FlushDB(b.Context()).Err(); err != nil {
		b.Fatal(err)
	}
	s.await(s.settled(b))
	const clients, tasks = 64, 16
	var delivered atomic.Int64
	b.ResetTimer()
	for b.Loop() {
		var wg sync.WaitGroup
		for range clients {
			wg.Go(func() {
				var query strings.Builder
				ids := make([]task.ID, tasks)
				for i := range ids {
					ids[i] = s.id()
					fmt.Fprintf(&query, "&task=%s", ids[i])
				}
				res := s.get("/v1/events?" + query.String()[1:])
				for _, id := range ids {
					s.pub.TerminalAsync(s.ended(id, task.Succeeded, 0), func(tasktopic.Ack, error) {})
				}
				got, _ := frames(b, res.Body, -1)
				_ = res.Body.Close()
				delivered.Add(int64(len(got) / 2))
			})
		}
		wg.Wait()
	}
	b.ReportMetric(float64(delivered.Load())/b.Elapsed().Seconds(), "tasks/s")
}
