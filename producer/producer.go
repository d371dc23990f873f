// Package producer is the ingress as one piece: it wires the HTTP face, the
// intake and the cancel desk to Kafka and Redis.
//
// Order of a stop: the HTTP server stops taking requests and lets those in
// flight finish (Drain makes waiting ones answer at once), then Run's context
// ends, what is buffered is flushed, and the clients close.
package producer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/internal/callback"
	"github.com/penstock/penstock/internal/catalog"
	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/convstore"
	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/repeat"
	"github.com/penstock/penstock/internal/seats"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/internal/ticket"
	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/producer/backlog"
	"github.com/penstock/penstock/producer/cancel"
	"github.com/penstock/penstock/producer/grpcapi"
	"github.com/penstock/penstock/producer/httpapi"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/producer/moderation"
	"github.com/penstock/penstock/producer/rules"
	"github.com/penstock/penstock/producer/session"
	"github.com/penstock/penstock/producer/sweep"
	"github.com/penstock/penstock/producer/ws"
	"github.com/penstock/penstock/schema/spec"
	"github.com/penstock/penstock/schema/task"
)

// Deps are what a Service shares with its process. Only Log and Registry are
// required.
type Deps struct {
	Log      *slog.Logger
	Registry prometheus.Registerer
	Ready    *lifecycle.Readiness // told whether Kafka answers
	Auth     auth.Authenticator   // default: the API keys of the configuration, else everybody is tenant dev
	Catalog  *catalog.Catalog     // default: the configuration's file
	Follower *follow.Follower     // who runs it gives it; default: one of its own, which Run runs
}

// Service is the ingress. Its routes are added to an Echo by Register.
type Service struct {
	*httpapi.API
	sockets *ws.API

	rpc   *grpcapi.Server // nil without grpc_listen
	log   *slog.Logger
	ready *lifecycle.Readiness
	ping  func(context.Context) error
	loops []func(context.Context) // run by Run until its context ends
	drain context.CancelFunc
	stack lifecycle.Stack
}

const (
	openTimeout  = 30 * time.Second
	pingEvery    = 5 * time.Second
	flushTimeout = 15 * time.Second // above the delivery timeout of a record
	storeTimeout = 10 * time.Second // for a large payload to be stored: the caller waits
)

// Open connects to Kafka, checks the topics and creates what is missing. Redis
// may be down. On error nothing is left open.
func Open(ctx context.Context, cfg Config, d Deps) (_ *Service, err error) {
	ctx, cancelOpen := context.WithTimeout(ctx, openTimeout)
	defer cancelOpen()
	s := &Service{log: d.Log, ready: d.Ready}
	if s.ready == nil {
		s.ready = new(lifecycle.Readiness)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stack.Stop(context.WithoutCancel(ctx)))
		}
	}()
	if err := d.fill(cfg); err != nil {
		return nil, err
	}
	minter, err := cfg.IDConfig.Minter(cfg.Listen)
	if err != nil {
		return nil, err
	}
	tickets, err := cfg.IDConfig.Tickets()
	if err != nil {
		return nil, err
	}
	router, err := openRules(cfg, d)
	if err != nil {
		return nil, err
	}
	k, err := s.openKafka(ctx, cfg, d)
	if err != nil {
		return nil, err
	}
	redis, err := s.openStore(cfg, &d)
	if err != nil {
		return nil, err
	}
	if err := s.openSweeper(cfg, d, k.pub, redis.memory.Store); err != nil {
		return nil, err
	}
	claims, blobs, err := claimcheck.Open(ctx, cfg.Blob, claimcheck.Deps{
		Service: "producer", Registry: d.Registry, Log: d.Log, Wait: storeTimeout,
	})
	if err != nil {
		return nil, err
	}
	return s, s.wire(cfg, d, parts{minter, tickets, router, k.pub, k.watch, redis, claims, blobs})
}

// fill replaces what the caller left to the configuration.
func (d *Deps) fill(cfg Config) error {
	var err error
	if d.Catalog == nil {
		if cfg.Catalog == "" {
			return errors.New("catalog: name the YAML file of models and pools")
		}
		if d.Catalog, err = catalog.Load(cfg.Catalog); err != nil {
			return err
		}
	}
	if d.Auth == nil {
		d.Auth, err = cfg.AuthConfig.Open(cfg.Listen)
		return err
	}
	return auth.CheckBind(d.Auth, cfg.Listen)
}

// openRules compiles the operator's rules, or the catch-all to the first chat
// model.
func openRules(cfg Config, d Deps) (*rules.Set, error) {
	c, err := rulesOf(cfg.Rules, d.Catalog)
	if err != nil {
		return nil, err
	}
	known := func(model string) bool { _, ok := d.Catalog.Model(model); return ok }
	return rules.Compile(c, known, d.Registry)
}

func rulesOf(path string, models *catalog.Catalog) (rules.Config, error) {
	if path != "" {
		return rules.Load(path)
	}
	for _, m := range models.Models {
		if m.Serves(task.Chat) {
			return rules.CatchAll(m.ID), nil
		}
	}
	return rules.Config{}, nil
}

// kafka is what the ingress has on its client.
type kafka struct {
	pub   *tasktopic.Publisher
	watch ingest.Backlog
}

func (s *Service) openKafka(ctx context.Context, cfg Config, d Deps) (kafka, error) {
	cl, err := kafkaclient.New(cfg.Kafka, d.Log, kafkaclient.ProducerOpts(int(cfg.BufferBytes))...)
	if err != nil {
		return kafka{}, err
	}
	s.stack.Push("kafka", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, flushTimeout)
		defer cancel()
		defer cl.Close()
		return cl.Flush(ctx)
	})
	s.ping = cl.Ping
	if err := cfg.TopicConfig.Ensure(ctx, cl, d.Catalog.PoolNames(), d.Log); err != nil {
		return kafka{}, err
	}
	out := kafka{pub: tasktopic.NewPublisher(cl, tasktopic.Params{ResultsPartitions: cfg.Partitions}), watch: noBacklog{}}
	if err := out.pub.Sync(ctx); err != nil { // no deadline may be set by this machine's clock
		return kafka{}, err
	}
	s.loops = append(s.loops, func(ctx context.Context) { out.pub.KeepTime(ctx, d.Log) })
	if cfg.BacklogCheck {
		w := backlog.New(cl, backlog.Params{Pools: d.Catalog.PoolNames(), MaxAge: cfg.MaxTaskAge, NowFunc: out.pub.BrokerNow}, d.Log, d.Registry)
		out.watch = w
		s.loops = append(s.loops, w.Run)
	}
	return out, nil
}

// noBacklog is the verdict where nobody looks.
type noBacklog struct{}

func (noBacklog) Over() bool { return false }

// openStore connects to Redis when first needed, and follows the results unless
// the process already does.
func (s *Service) openStore(cfg Config, d *Deps) (stores, error) {
	rdb, err := redisclient.New(cfg.Redis)
	if err != nil {
		return stores{}, err
	}
	s.stack.PushClose("redis", rdb.Close)
	store := taskstore.New(rdb, taskstore.Params{Partitions: cfg.Partitions, TTL: cfg.ResultTTL, MaxAge: cfg.MaxTaskAge})
	out := stores{memory{store}, convstore.New(rdb, convstore.Params{Partitions: cfg.Partitions}), repeat.New(rdb)}
	if d.Follower != nil {
		return out, nil
	}
	log := eventlog.New(rdb, eventlog.Params{Partitions: cfg.Partitions, TTL: cfg.ResultTTL})
	f := follow.New(store, log, follow.Params{Service: "producer", Log: d.Log, Registry: d.Registry})
	d.Follower = f
	return out, s.follow(cfg, *d, f)
}

// stores are what the ingress reads in Redis.
type stores struct {
	memory        memory
	conversations *convstore.Store
	repeats       *repeat.Memory
}

// follow has Run watch the results: over Redis, and at the log's end for the
// time that Redis is away.
func (s *Service) follow(cfg Config, d Deps, f *follow.Follower) error {
	cl, err := kafkaclient.New(cfg.Kafka, d.Log)
	if err != nil {
		return err
	}
	s.stack.PushClose("results tail", func() error { cl.Close(); return nil })
	logged := func(what string, run func(context.Context) error) func(context.Context) {
		return func(ctx context.Context) {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				d.Log.Error("waiting calls will time out", "what", what, "err", err)
			}
		}
	}
	s.loops = append(s.loops,
		logged("follow tasks", f.Run),
		logged("tail results", func(ctx context.Context) error { return f.RunTail(ctx, cl) }))
	return nil
}

// openSweeper has Run end the expired tasks that no worker meets.
func (s *Service) openSweeper(cfg Config, d Deps, pub *tasktopic.Publisher, store *taskstore.Store) error {
	if !cfg.Sweep {
		return nil
	}
	cl, err := kafkaclient.New(cfg.Kafka, d.Log, kafkaclient.ScanOpts()...)
	if err != nil {
		return err
	}
	s.stack.PushClose("sweeper", func() error { cl.Close(); return nil })
	sweeper := sweep.New(store, pub, cl, sweep.Params{Pools: d.Catalog.PoolNames(), ScanEvery: cfg.SweepScan}, d.Log, d.Registry)
	s.loops = append(s.loops, sweeper.Run)
	return nil
}

// parts are what the handlers stand on.
type parts struct {
	minter  *task.Minter
	tickets *ticket.Signer
	router  *rules.Set
	pub     *tasktopic.Publisher
	watch   ingest.Backlog
	stores
	claims *claimcheck.Desk
	blobs  *blob.Store // nil without one
}

func (s *Service) wire(cfg Config, d Deps, p parts) error {
	metrics := ingest.NewMetrics(d.Registry)
	limits := admit.New(admit.Params{
		TasksPerSecond: cfg.TasksPerSecond, Burst: cfg.TasksBurst, InFlightBytes: int64(cfg.InFlightBytes), Exempt: auth.DevTenant,
	}, d.Registry)
	hints := ingest.NewHints(p.memory, metrics, d.Log)
	s.loops = append(s.loops, hints.Run, s.watchKafka)
	intake := ingest.New(ingest.Deps{
		Minter: p.minter, Catalog: d.Catalog, Router: p.router, Admission: limits, Backlog: p.watch,
		Publisher: p.pub, Memory: p.memory, Queues: p.memory, Claims: p.claims, Hints: hints, Metrics: metrics, Log: d.Log,
	}, ingest.Params{MaxAge: cfg.MaxTaskAge, Exempt: auth.DevTenant, KeyQueueLimit: cfg.KeyQueueLimit, Webhooks: callback.Policy{AllowPrivate: cfg.WebhookAllowPrivate}})
	desk := cancel.New(p.minter, p.pub, p.memory, d.Follower, cancel.Params{Gone: p.memory.Params().Gone}, d.Log)
	draining, drain := context.WithCancel(context.Background())
	s.drain = drain
	s.stack.PushClose("waiting calls", func() error { drain(); return nil })
	keys, err := cfg.WebhookKeys()
	if err != nil {
		return err
	}
	jobs, err := s.openBulk(cfg, d, bulkParts{p.pub, p.blobs, p.claims, intake, desk})
	if err != nil {
		return err
	}
	if s.sockets, err = openSockets(cfg, d, p, intake, metrics, limits, desk); err != nil {
		return err
	}
	s.API, err = httpapi.New(httpapi.Deps{
		Filter: s.openFilter(cfg, d),
		Bulk:   jobs, MaxFile: int64(cfg.Bulk.MaxFile),
		Sessions: session.New(session.Params{Publisher: p.pub, Store: p.conversations, Results: p.memory, Claims: p.claims}),
		Intake:   intake, Metrics: metrics, Limits: limits, Cancels: desk, Waiter: d.Follower, Results: p.claims,
		Catalog: d.Catalog, Auth: d.Auth, Schemas: spec.FS, Secrets: keys, Hooks: p.memory, Drain: draining,
		WatchFunc: watcher(d.Follower), Repeats: p.repeats, Seats: seats.New(seats.Params{All: maxStreams, PerTenant: maxTenantStreams}),
		Registry: d.Registry, Log: d.Log,
		Responses: openResponses(cfg, d, p, desk), NewestFunc: d.Follower.Newest,
		Grace: cfg.HangUpGrace,
		Faces: []httpapi.Face{s.sockets}, IDs: p.minter, Tickets: p.tickets,
	})
	if err != nil {
		return err
	}
	return s.openRPC(cfg, grpcapi.Deps{
		Intake: intake, Metrics: metrics, Limits: limits, Cancels: desk, Follower: d.Follower, Store: p.memory, Results: p.claims,
		IDs: p.minter, Auth: d.Auth, Schemas: spec.FS, Ready: s.ready.Err, Log: d.Log, Registry: d.Registry,
	})
}

// openFilter returns what moderates, or nil where nothing is set.
func (s *Service) openFilter(cfg Config, d Deps) httpapi.Filter {
	if cfg.Moderation.URL == "" {
		return nil
	}
	f := moderation.New(cfg.Moderation, d.Registry)
	s.stack.PushClose("filter", func() error { f.Close(); return nil })
	return f
}

// Bounds of the streams of the OpenAI routes that are open at once.
const (
	maxStreams       = 20_000
	maxTenantStreams = 10_000
)

// watcher has the follower hand over the events of a task from the first on.
func watcher(f *follow.Follower) func(context.Context, task.ID) (httpapi.Events, error) {
	return func(ctx context.Context, id task.ID) (httpapi.Events, error) {
		return f.FollowMany(ctx, []follow.Watch{{ID: id}})
	}
}

// watchKafka keeps the readiness: an ingress that cannot reach Kafka wants no
// requests. Redis is not asked, since submits go on without it.
func (s *Service) watchKafka(ctx context.Context) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		asked, cancel := context.WithTimeout(ctx, pingEvery)
		err := s.ping(asked)
		cancel()
		if ctx.Err() != nil {
			return
		}
		s.ready.Set("kafka", err)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Drain makes calls that wait for a result answer 202 now, and gRPC take no new
// ones. It asks the clients of WebSockets to reconnect, and returns once the last
// of these is closed. The HTTP server calls it when it stops taking requests.
func (s *Service) Drain() {
	s.drain()
	if s.rpc != nil {
		s.rpc.Drain()
	}
	s.sockets.Drain()
}

// Run works until ctx ends and the calls of gRPC have, then closes the service.
// Its context should end after the HTTP server has drained.
func (s *Service) Run(ctx context.Context) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var wg sync.WaitGroup
	for _, loop := range s.loops {
		wg.Go(func() { loop(running) })
	}
	err := s.serveRPC(ctx)
	<-ctx.Done()
	s.Drain()
	stop()
	wg.Wait()
	return errors.Join(err, s.Close(context.WithoutCancel(ctx)))
}

// Close flushes what is buffered and closes the clients. Only a Service that
// is not run needs it; a second call does nothing.
func (s *Service) Close(ctx context.Context) error {
	if err := s.stack.Stop(ctx); err != nil {
		return fmt.Errorf("close producer: %w", err)
	}
	return nil
}
