package worker_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/internal/catalog"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
	"github.com/penstock/penstock/worker"
	"github.com/penstock/penstock/worker/backend"
)

// BenchmarkWorker is one task from its record to its acknowledged terminal,
// through one worker with backends that cost nothing. The broker and Redis are
// in this process and share its cores, unless PENSTOCK_BENCH_BROKERS and
// PENSTOCK_BENCH_REDIS name real ones.
func BenchmarkWorker(b *testing.B) {
	for _, stream := range []bool{false, true} {
		b.Run(fmt.Sprintf("stream=%t", stream), func(b *testing.B) { benchmark(b, stream) })
	}
}

func benchmark(b *testing.B, stream bool) {
	cfg := worker.DefaultConfig()
	cfg.Kafka.Brokers, cfg.Redis.URL = external(b)
	cfg.Mover, cfg.Redrive = false, false
	quiet := slog.New(slog.DiscardHandler)
	cl, err := kafkaclient.New(cfg.Kafka, quiet, kafkaclient.ProducerOpts(1<<30)...)
	if err != nil {
		b.Fatal(err)
	}
	defer cl.Close()
	cat, err := catalog.Parse([]byte(`
models: [{id: m, pool: bench, kinds: [chat]}]
pools: [{name: bench, batch: {max_tasks: 32}, backends: [{name: b, url: "http://x", concurrency: 64}]}]
`))
	if err != nil {
		b.Fatal(err)
	}
	engine := &engine{runs: map[task.ID]int{}, do: echo, batch: 32}
	wk, err := worker.Open(b.Context(), cfg, worker.Deps{
		Log: quiet, Registry: prometheus.NewRegistry(), Catalog: cat,
		BackendFunc: func(catalog.Pool, catalog.Backend) (backend.Backend, error) { return engine, nil },
	})
	if err != nil {
		b.Fatal(err)
	}
	fill(b, cl, stream)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	results, err := kafkaclient.New(cfg.Kafka, quiet, kafkaclient.TailOpts(topic.Results)...)
	if err != nil {
		b.Fatal(err)
	}
	defer results.Close()
	began := cpu(b)
	b.ResetTimer()
	wg.Go(func() {
		if err := wk.Run(ctx); err != nil {
			b.Error(err)
		}
	})
	for n := 0; n < b.N; {
		n += results.PollFetches(b.Context()).NumRecords()
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
	b.ReportMetric(float64((cpu(b)-began).Nanoseconds())/float64(b.N), "cpu-ns/op")
	cancel()
	wg.Wait()
}

// external returns the broker and Redis to measure with.
func external(b *testing.B) ([]string, config.Secret) {
	brokers, redis := os.Getenv("PENSTOCK_BENCH_BROKERS"), os.Getenv("PENSTOCK_BENCH_REDIS")
	if brokers != "" && redis != "" {
		return []string{brokers}, config.Secret(redis)
	}
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(cluster.Close)
	return cluster.ListenAddrs(), config.Secret("redis://" + miniredis.RunT(b).Addr())
}

// fill writes the tasks, so that the benchmark measures the worker alone.
func fill(b *testing.B, cl *kgo.Client, stream bool) {
	minter, err := task.NewMinter(task.Secret{Key: make([]byte, 16)})
	if err != nil {
		b.Fatal(err)
	}
	for i := range b.N {
		t := &task.Task{
			SchemaVersion: 1, ID: minter.New("acme", time.Now()), Kind: task.Chat, Source: task.SourceAPI, Tenant: "acme", Model: "m",
			Class: task.Standard, Payload: task.Payload{Text: "Classify this ticket: since this morning every export ends in a blank file."},
			Stream: stream, Timestamp: time.Now(), Deadline: time.Now().Add(time.Hour),
		}
		rec, err := wire.EncodeTask(t, task.Progress{}, "")
		if err != nil {
			b.Fatal(err)
		}
		headers := make([]kgo.RecordHeader, len(rec.Headers))
		for i, h := range rec.Headers {
			headers[i] = kgo.RecordHeader(h)
		}
		lane := topic.Tasks("bench", task.Classes()[i%3])
		cl.Produce(context.Background(), &kgo.Record{Topic: lane, Key: rec.Key, Value: rec.Value, Headers: headers}, nil)
	}
	if err := cl.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// cpu is what this process has used: on a shared machine the elapsed time says
// little.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
