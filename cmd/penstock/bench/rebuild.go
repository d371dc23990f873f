package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/resultsvc/project"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// Rebuild measures how fast a Redis that lost everything is filled again from
// penstock.results, beside the least that could do the job: one client that
// writes as many of the same payloads in plain pipelines. It empties the Redis
// it is given, and leaves its results in the topic.
type Rebuild struct {
	Kafka      []string
	Redis      string
	Partitions int32 // of penstock.results
	Results    int
	Bytes      int // of a result's text
}

// RebuildReport is what came out.
type RebuildReport struct {
	Results int           // in the log, what earlier runs left included
	Rebuild time.Duration // from the loss until all of them were back
	Written int           // payloads of the plain client
	Floor   time.Duration // that it took
}

// Ratio is the rebuild's rate over the plain client's.
func (r RebuildReport) Ratio() float64 {
	return float64(r.Results) / r.Rebuild.Seconds() / (float64(r.Written) / r.Floor.Seconds())
}

const (
	rebuildGroup  = "penstock.bench.rebuild"
	rebuildTenant = "bench"
	floorPipeline = 512 // commands of the plain client in one round trip
)

// run is one measurement's connections.
type rebuildRun struct {
	Rebuild
	cl    *kgo.Client
	rdb   redis.UniversalClient
	store *taskstore.Store
	log   *slog.Logger
}

// Run writes the results, and then takes both measures.
func (b Rebuild) Run(ctx context.Context, log *slog.Logger) (_ RebuildReport, err error) {
	rdb, err := redisclient.New(redisclient.Config{URL: config.Secret(b.Redis), PoolSize: 16})
	if err != nil {
		return RebuildReport{}, err
	}
	defer func() { err = errors.Join(err, rdb.Close()) }()
	cl, err := kafkaclient.New(b.kafka(), log, kafkaclient.ProducerOpts(64<<20)...)
	if err != nil {
		return RebuildReport{}, err
	}
	defer cl.Close()
	topics := tasktopic.DefaultConfig()
	topics.Partitions = b.Partitions
	if err := topics.EnsureResults(ctx, cl, log); err != nil {
		return RebuildReport{}, err
	}
	r := rebuildRun{b, cl, rdb, taskstore.New(rdb, taskstore.Params{Partitions: b.Partitions}), log}
	if err := r.write(ctx); err != nil {
		return RebuildReport{}, err
	}
	out := RebuildReport{Written: b.Results}
	if out.Floor, err = r.floor(ctx); err != nil {
		return RebuildReport{}, err
	}
	out.Rebuild, out.Results, err = r.rebuild(ctx)
	return out, err
}

func (b Rebuild) kafka() kafkaclient.Config {
	return kafkaclient.Config{Brokers: b.Kafka, ClientID: "penstock-bench"}
}

// write puts the results into the log.
func (r rebuildRun) write(ctx context.Context) error {
	minter, err := task.NewMinter(task.Secret{Key: []byte("penstock bench rebuild")})
	if err != nil {
		return err
	}
	pub := tasktopic.NewPublisher(r.cl, tasktopic.Params{ResultsPartitions: r.Partitions})
	var mu sync.Mutex
	var failed error
	var wg sync.WaitGroup
	for i := range r.Results {
		if i%floorPipeline == 0 { // at most so many wait: the client's buffer refuses more
			wg.Wait()
		}
		if ctx.Err() != nil {
			break
		}
		wg.Add(1)
		pub.TerminalAsync(r.result(minter.New(rebuildTenant, time.Now())), func(_ tasktopic.Ack, err error) {
			defer wg.Done()
			mu.Lock()
			defer mu.Unlock()
			failed = errors.Join(failed, err)
		})
	}
	wg.Wait()
	return errors.Join(context.Cause(ctx), failed)
}

func (r rebuildRun) result(id task.ID) *terminal.Terminal {
	now, generation := time.Now().UTC(), uint8(0)
	return &terminal.Terminal{
		SchemaVersion: task.SchemaVersion, TaskID: id, Status: task.Succeeded, Generation: &generation, Tenant: rebuildTenant,
		Kind: task.Completion, Model: "bench", Class: task.Standard, Source: task.SourceAPI,
		Output: &task.Output{Text: words(r.Bytes)}, CreatedAt: now, EndedAt: now,
	}
}

// words is text of so many bytes that no codec can shrink to nothing.
func words(n int) string {
	const letters = "abcdefghijklmnopqrstuvwxyz     "
	out := make([]byte, n)
	for i := range out {
		out[i] = letters[rand.IntN(len(letters))]
	}
	return string(out)
}

// floor writes as many payloads as plainly as can be.
func (r rebuildRun) floor(ctx context.Context) (time.Duration, error) {
	if err := r.rdb.FlushDBAsync(ctx).Err(); err != nil {
		return 0, fmt.Errorf("empty redis: %w", err)
	}
	payload, err := json.Marshal(r.result("task"))
	if err != nil {
		return 0, fmt.Errorf("encode result: %w", err)
	}
	began := time.Now()
	for i := 0; i < r.Results; i += floorPipeline {
		pipe := r.rdb.Pipeline()
		for n := range min(floorPipeline, r.Results-i) {
			pipe.HSet(ctx, fmt.Sprintf("bench:%d", i+n), "result", payload)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return 0, fmt.Errorf("write to redis: %w", err)
		}
	}
	return time.Since(began), nil
}

// rebuild has a projector catch up, takes everything from under it and waits
// until it is all there again.
func (r rebuildRun) rebuild(ctx context.Context) (time.Duration, int, error) {
	if err := r.rdb.FlushDBAsync(ctx).Err(); err != nil {
		return 0, 0, fmt.Errorf("empty redis: %w", err)
	}
	of := project.Results(r.store)
	of.Group = rebuildGroup
	p := project.New(of, project.Params{}, r.log, prometheus.NewRegistry())
	running, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.Run(running, r.kafka()) }) // ends with its context only
	defer func() { stop(); wg.Wait() }()
	if _, err := r.caughtUp(ctx); err != nil {
		return 0, 0, err
	}
	if err := r.rdb.FlushDBAsync(ctx).Err(); err != nil {
		return 0, 0, fmt.Errorf("empty redis: %w", err)
	}
	began := time.Now() // now it is empty; to notice that is part of the measure
	n, err := r.caughtUp(ctx)
	return time.Since(began), n, err
}

// caughtUp waits until every partition holds what the log holds, and counts
// results.
func (r rebuildRun) caughtUp(ctx context.Context) (int, error) {
	partitions := make([]int32, r.Partitions)
	for p := range partitions {
		partitions[p] = int32(p)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		at, err := r.store.Projections(ctx, partitions)
		left, n := len(at), int64(0)
		for _, p := range at {
			if p.CaughtUp() {
				left--
			}
			n += p.Next
		}
		if err == nil && left == 0 {
			return int(n), nil
		}
		select {
		case <-ctx.Done():
			return 0, errors.Join(context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// table prints both rates and their ratio.
func (r RebuildReport) table(w io.Writer) error {
	t := newTable(w)
	row(t, "WHO", "RESULTS", "SECONDS", "RESULTS/S")
	line := func(name string, n int, d time.Duration) {
		row(t, name, n, fmt.Sprintf("%.1f", d.Seconds()), fmt.Sprintf("%.0f", float64(n)/d.Seconds()))
	}
	line("rebuild", r.Results, r.Rebuild)
	line("one plain client", r.Written, r.Floor)
	row(t, "ratio", fmt.Sprintf("%.2f", r.Ratio()))
	return t.Flush()
}
