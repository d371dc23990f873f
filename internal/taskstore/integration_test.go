//go:build integration

package taskstore_test

import (
	"os"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/taskstore/taskstoretest"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// realRedis is the server named by PENSTOCK_TEST_REDIS. The tests empty it.
func realRedis(tb testing.TB) redis.UniversalClient {
	tb.Helper()
	url := os.Getenv("PENSTOCK_TEST_REDIS")
	if url == "" {
		tb.Skip("PENSTOCK_TEST_REDIS is not set")
	}
	opt, err := redis.ParseURL(url)
	if err != nil {
		tb.Fatal(err)
	}
	opt.DB = 1 // packages are tested side by side: each has its own
	rdb := redis.NewClient(opt)
	tb.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

func TestOnRealRedis(t *testing.T) {
	taskstoretest.Run(t, func(t *testing.T) redis.UniversalClient { return realRedis(t) })
}

// BenchmarkRebuild measures how fast a lost projection comes back: results of
// about 1 KiB.
func BenchmarkRebuild(b *testing.B) {
	rdb := realRedis(b)
	store := taskstore.New(rdb, taskstore.Params{Partitions: 1})
	minter, err := task.NewMinter(task.Secret{Key: []byte("0123456789abcdef")})
	if err != nil {
		b.Fatal(err)
	}
	text := make([]byte, 900)
	for i := range text {
		text[i] = 'a' + byte(i%26)
	}
	now, zero := time.Now(), uint8(0)
	const batch = 2048
	b.ReportAllocs()
	if err := rdb.FlushDB(b.Context()).Err(); err != nil {
		b.Fatal(err)
	}
	if err := store.Rebuild(b.Context(), 0, 0, int64(b.N*batch)); err != nil {
		b.Fatal(err)
	}
	records := make([]taskstore.Applied, batch)
	for b.Loop() {
		b.StopTimer()
		p, err := store.Projection(b.Context(), 0)
		if err != nil {
			b.Fatal(err)
		}
		for i := range records {
			records[i] = taskstore.Applied{Offset: p.Next + int64(i), Terminal: &terminal.Terminal{
				SchemaVersion: 1, TaskID: minter.New("acme", now), Status: task.Succeeded, Generation: &zero, Tenant: "acme",
				Output: &task.Output{Text: string(text)}, CreatedAt: now, EndedAt: now,
			}}
		}
		b.StartTimer()
		if err := store.Apply(b.Context(), 0, p.Next, p.Next+batch, records); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "results/s")
}
