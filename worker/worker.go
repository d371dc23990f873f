// Package worker runs inference tasks: it takes them from Kafka, gives them to
// backends and writes what became of them, at least once and visibly exactly
// once.
//
// Order of a stop: readiness off, no more polls, what runs finishes within
// drain_grace, what has not started is left for the next owner, the last commit,
// the groups are left, what is buffered is flushed, the clients close.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/internal/catalog"
	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/convstore"
	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/internal/telemetry"
	"github.com/penstock/penstock/worker/attempt"
	"github.com/penstock/penstock/worker/backend"
	"github.com/penstock/penstock/worker/mover"
	"github.com/penstock/penstock/worker/recall"
	"github.com/penstock/penstock/worker/redrive"
)

// Deps are what a Worker shares with its process. Only Log and Registry are
// required.
type Deps struct {
	Log      *slog.Logger
	Registry prometheus.Registerer
	Ready    *lifecycle.Readiness // told whether every pool is in its group
	Catalog  *catalog.Catalog     // default: the configuration's file

	// BackendFunc makes the backends of the catalog; default Backend.
	BackendFunc func(catalog.Pool, catalog.Backend) (backend.Backend, error)
}

// Worker serves some pools.
type Worker struct {
	cfg     Config
	log     *slog.Logger
	ready   *lifecycle.Readiness
	pools   []*pool
	runner  *attempt.Runner
	store   *taskstore.Store
	pub     *tasktopic.Publisher
	claims  *claimcheck.Desk
	blobs   *blob.Store       // nil without
	mover   *mover.Mover      // nil without
	redrive *redrive.Redriver // nil without
	stack   lifecycle.Stack
}

const (
	openTimeout  = 30 * time.Second
	flushTimeout = 15 * time.Second // above the delivery timeout of a record
)

// Open connects to Kafka, checks the topics and creates what is missing. Redis
// may be down. On error nothing is left open.
func Open(ctx context.Context, cfg Config, d Deps) (_ *Worker, err error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	w := &Worker{cfg: cfg, log: d.Log, ready: d.Ready}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close(context.WithoutCancel(ctx)))
		}
	}()
	if w.ready == nil {
		w.ready = new(lifecycle.Readiness)
	}
	w.ready.Set("groups", errors.New("not joined yet"))
	if err := d.fill(cfg); err != nil {
		return nil, err
	}
	pub, err := w.openKafka(ctx, d)
	if err != nil {
		return nil, err
	}
	if w.claims, w.blobs, err = claimcheck.Open(ctx, cfg.Blob, claimcheck.Deps{Service: "worker", Registry: d.Registry, Log: d.Log}); err != nil {
		return nil, err
	}
	if err := w.openStore(d, pub); err != nil {
		return nil, err
	}
	if err := w.openPools(d, pub); err != nil {
		return nil, err
	}
	return w, w.openServices(d, pub)
}

// fill replaces what the caller left to the configuration.
func (d *Deps) fill(cfg Config) error {
	var err error
	if d.BackendFunc == nil {
		d.BackendFunc = Backend
	}
	if d.Catalog == nil {
		if cfg.Catalog == "" {
			return errors.New("catalog: name the YAML file of models and pools")
		}
		if d.Catalog, err = catalog.Load(cfg.Catalog); err != nil {
			return err
		}
	}
	for _, name := range cfg.Pools {
		if !slices.Contains(d.Catalog.PoolNames(), name) {
			return fmt.Errorf("pools: %q is not in the catalog, which has %v", name, d.Catalog.PoolNames())
		}
	}
	return nil
}

func (w *Worker) openKafka(ctx context.Context, d Deps) (*tasktopic.Publisher, error) {
	cl, err := kafkaclient.New(w.cfg.Kafka, d.Log, kafkaclient.ProducerOpts(int(w.cfg.BufferBytes))...)
	if err != nil {
		return nil, err
	}
	w.stack.Push("kafka", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, flushTimeout)
		defer cancel()
		defer cl.Close()
		return cl.Flush(ctx)
	})
	if err := w.cfg.TopicConfig.Ensure(ctx, cl, d.Catalog.PoolNames(), d.Log); err != nil {
		return nil, err
	}
	w.pub = tasktopic.NewPublisher(cl, tasktopic.Params{ResultsPartitions: w.cfg.Partitions})
	return w.pub, w.pub.Sync(ctx) // no deadline may be compared with this machine's clock
}

func (w *Worker) openStore(d Deps, pub *tasktopic.Publisher) error {
	rdb, err := redisclient.New(w.cfg.Redis)
	if err != nil {
		return err
	}
	w.stack.PushClose("redis", rdb.Close)
	w.store = taskstore.New(rdb, taskstore.Params{Partitions: w.cfg.Partitions, TTL: w.cfg.ResultTTL, MaxAge: w.cfg.MaxTaskAge})
	memory := recall.New(recall.Params{
		Sessions: convstore.New(rdb, convstore.Params{Partitions: w.cfg.Partitions}), Results: w.store, Publisher: pub, Claims: w.claims,
		Log: d.Log, Metrics: d.Registry, MaxTokens: w.cfg.SessionTokens,
	})
	w.runner = attempt.NewRunner(attempt.Params{
		Store: w.store, Claims: w.claims, Memory: memory, Log: eventlog.New(rdb, eventlog.Params{Partitions: w.cfg.Partitions, TTL: w.cfg.ResultTTL}),
		Logger: d.Log, Metrics: d.Registry, Worker: w.cfg.Name, NowFunc: pub.BrokerNow,
		Timeout: w.cfg.AttemptTimeout, Idle: w.cfg.Idle, FirstToken: w.cfg.FirstToken, TokenEvery: w.tokenEvery(),
	})
	return nil
}

// tokenEvery is the operator's interval as the runner takes it, where zero
// means its default.
func (w *Worker) tokenEvery() time.Duration {
	if w.cfg.TokenEvery == 0 {
		return -1
	}
	return w.cfg.TokenEvery
}

func (w *Worker) openPools(d Deps, pub *tasktopic.Publisher) error {
	for _, p := range d.Catalog.Pools {
		if len(w.cfg.Pools) > 0 && !slices.Contains(w.cfg.Pools, p.Name) {
			continue
		}
		opened, err := openPool(w.cfg, p, d, poolParts{w.runner, pub, w.claims})
		if err != nil {
			return fmt.Errorf("open pool %s: %w", p.Name, err)
		}
		w.pools = append(w.pools, opened)
		w.stack.Push("pool "+p.Name, opened.close)
	}
	return nil
}

// openServices adds what any worker can do beside its pools.
func (w *Worker) openServices(d Deps, pub *tasktopic.Publisher) error {
	build := telemetry.ReadBuild().Version
	var err error
	if w.cfg.Mover {
		if w.mover, err = mover.Open(mover.Params{Kafka: w.cfg.Kafka, Publisher: pub, Log: d.Log, Metrics: d.Registry, Build: build}); err != nil {
			return err
		}
		w.stack.Push("mover", w.mover.Close)
	}
	if !w.cfg.Redrive {
		return nil
	}
	source, err := redrive.NewKafkaSource(w.cfg.Kafka, d.Log)
	if err != nil {
		return err
	}
	w.stack.PushClose("dead letters", func() error { source.Close(); return nil })
	w.redrive, err = redrive.New(redrive.Params{
		Source: source, Publisher: pub, Store: w.store, Log: d.Log, Metrics: d.Registry,
		Blobs: w.renewer(), ResultsPartitions: w.cfg.Partitions, Owner: w.cfg.Name + "/worker", Pools: d.Catalog.PoolNames(), Token: w.cfg.AdminToken,
		GoneAtFunc: w.store.Params().GoneAt,
		PoolOfFunc: func(model string) (string, bool) {
			m, ok := d.Catalog.Model(model)
			return m.Pool, ok
		},
	})
	return err
}

// renewer is the blob store, or nothing: not a nil store in an interface.
func (w *Worker) renewer() redrive.Blobs {
	if w.blobs == nil {
		return nil
	}
	return w.blobs
}

// Admin returns the operator's routes, all below /admin/v1/, or nil where this
// worker does not run redrives.
func (w *Worker) Admin() http.Handler {
	if w.redrive == nil {
		return nil
	}
	return w.redrive.Handler()
}

// Run works until ctx is done or a pool cannot go on, drains and closes the
// worker.
func (w *Worker) Run(ctx context.Context) error {
	services, stopServices := context.WithCancel(context.WithoutCancel(ctx)) // outlive the drain
	defer stopServices()
	var wg sync.WaitGroup
	wg.Go(func() { w.runner.Run(services) })
	wg.Go(func() { w.pub.KeepTime(services, w.log) })

	g, work := errgroup.WithContext(ctx)
	for _, p := range w.pools {
		g.Go(func() error { return p.run(work) })
	}
	if w.mover != nil {
		g.Go(func() error { return w.mover.Run(work) })
	}
	if w.redrive != nil {
		g.Go(func() error { return w.redrive.Run(work) })
	}
	wg.Go(func() { w.followCancels(services) })
	wg.Go(func() { w.watchGroups(work) })
	wg.Go(func() { w.sweepBlobs(work) })
	err := g.Wait()
	stopServices()
	wg.Wait()
	return errors.Join(err, w.Close(context.WithoutCancel(ctx)))
}

// followCancels stops attempts whose task was cancelled. A signal that is lost
// costs only work: the attempt's terminal loses.
func (w *Worker) followCancels(ctx context.Context) {
	ids, err := w.store.Cancels(ctx)
	if err != nil {
		w.log.Warn("cancels are not followed: cancelled tasks run to their end", "err", err)
		return
	}
	for id := range ids {
		for _, p := range w.pools {
			p.loop.Cancel(id)
		}
	}
}

// sweepBlobs collects blobs that no record can refer to any more. Every worker
// does: they go by age, so sweepers do not need to know of one another, and
// there is none to be missed.
func (w *Worker) sweepBlobs(ctx context.Context) {
	if w.blobs == nil {
		return
	}
	blob.Sweeper{Store: w.blobs, OlderThan: w.cfg.BlobLife(), Log: w.log}.Run(ctx)
}

// watchGroups keeps the readiness: a worker that is in no group does nothing.
func (w *Worker) watchGroups(ctx context.Context) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		w.ready.Set("groups", w.joined())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (w *Worker) joined() error {
	var errs []error
	for _, p := range w.pools {
		if !p.group.Joined() {
			errs = append(errs, fmt.Errorf("pool %s has not joined its group", p.name))
		}
	}
	return errors.Join(errs...)
}

// Close releases what Open acquired. Only a Worker that is not run needs it; a
// second call does nothing.
func (w *Worker) Close(ctx context.Context) error {
	if err := w.stack.Stop(ctx); err != nil {
		return fmt.Errorf("close worker: %w", err)
	}
	return nil
}
