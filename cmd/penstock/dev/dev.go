package dev

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/internal/catalog"
	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/devstack"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/telemetry"
	"github.com/penstock/penstock/producer"
	"github.com/penstock/penstock/resultsvc"
	"github.com/penstock/penstock/worker"
)

// drainGrace is how long requests in flight may take once the process is to
// stop. Whoever pressed Ctrl-C is watching.
const drainGrace = 3 * time.Second

// Stack is the whole of Penstock in this process.
type Stack struct {
	cfg    Config
	log    *slog.Logger
	reg    *prometheus.Registry
	auth   auth.Authenticator
	models *catalog.Catalog

	store     *devstack.Store // nil with a real Redis
	simulator *simulator      // nil with a real engine
	kafka     kafkaclient.Config
	redis     redisclient.Config
	blobs     blob.Config

	server   *httpserver.Server
	producer *producer.Service
	worker   *worker.Worker
	results  *resultsvc.Service
	stack    lifecycle.Stack // what the services stand on
}

// Open starts what lies inside the process, opens the services and binds the
// address. On error nothing is left behind.
func Open(ctx context.Context, cfg Config, log *slog.Logger) (_ *Stack, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, &lifecycle.UsageError{Err: err}
	}
	s := &Stack{cfg: cfg, log: log, reg: telemetry.NewRegistry("dev")}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(context.WithoutCancel(ctx)))
		}
	}()
	for _, step := range []func(context.Context) error{
		s.openAuth, s.openKafka, s.openRedis, s.openBlobs, s.openEngine, s.openServices, s.openServer,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// openAuth refuses to let everybody in from other machines.
func (s *Stack) openAuth(context.Context) error {
	s.auth = auth.Dev{}
	if s.cfg.AuthKeysFile != "" {
		keys, err := auth.OpenKeys(s.cfg.AuthKeysFile)
		if err != nil {
			return err
		}
		s.auth = keys
	}
	if err := auth.CheckBind(s.auth, s.cfg.Listen); err != nil {
		return &lifecycle.UsageError{Err: err}
	}
	return nil
}

func (s *Stack) openKafka(context.Context) error {
	s.kafka = kafkaclient.DefaultConfig()
	s.kafka.ClientID = "penstock-dev"
	if s.cfg.Kafka != "" {
		s.kafka.Brokers = strings.Split(s.cfg.Kafka, ",")
		return nil
	}
	broker, err := devstack.OpenBroker(devstack.BrokerParams{DataDir: s.cfg.DataDir})
	if err != nil {
		return err
	}
	s.stack.PushClose("broker", broker.Close)
	s.kafka.Brokers = broker.Addrs()
	return nil
}

func (s *Stack) openRedis(context.Context) error {
	s.redis = redisclient.DefaultConfig()
	if s.cfg.Redis != "" {
		s.redis.URL = config.Secret(s.cfg.Redis)
		return nil
	}
	store, err := devstack.OpenStore(devstack.StoreParams{})
	if err != nil {
		return err
	}
	s.store = store
	s.stack.PushClose("store", func() error { store.Close(); return nil })
	s.redis.URL = config.Secret(store.URL())
	return nil
}

// openBlobs keeps large payloads and results where the log is kept: beside it,
// or as long as this process.
func (s *Stack) openBlobs(context.Context) error {
	if s.cfg.Blobs != "" || s.cfg.Kafka != "" {
		s.blobs = s.cfg.blobConfig("")
		return nil
	}
	if s.cfg.DataDir != "" {
		dir, err := filepath.Abs(filepath.Join(s.cfg.DataDir, "blobs"))
		s.blobs = s.cfg.blobConfig(dir)
		return err
	}
	dir, err := os.MkdirTemp("", "penstock-blobs-")
	if err != nil {
		return fmt.Errorf("make directory for blobs: %w", err)
	}
	s.stack.PushClose("blobs", func() error { return os.RemoveAll(dir) })
	s.blobs = s.cfg.blobConfig(dir)
	return nil
}

func (s *Stack) openEngine(ctx context.Context) (err error) {
	if s.cfg.Backend != "" {
		s.models, err = discover(ctx, s.cfg.Backend)
	} else {
		if s.simulator, err = openSimulator(); err != nil {
			return err
		}
		s.stack.PushClose("simulated engine", s.simulator.close)
		s.models = simulatedModels(s.simulator.URL())
	}
	if err != nil {
		return err
	}
	s.models.FillDefaults()
	return s.models.Validate()
}

// httpConfig is that of the one listener.
func (s *Stack) httpConfig() httpserver.Config {
	c := httpserver.DefaultConfig()
	c.Listen, c.DrainGrace = s.cfg.Listen, drainGrace
	c.BodyLimit = claimcheck.BodyLimit(s.blobs, c.BodyLimit)
	return c
}

func (s *Stack) openServer(context.Context) error {
	s.producer.Register(s.server.Echo())
	s.results.Register(s.server.Echo())
	s.server.Mount("/admin/v1/*", s.worker.Admin())
	s.server.Mount("/metrics", telemetry.MetricsHandler(s.reg))
	s.server.Mount("/chat", http.HandlerFunc(serveChat))
	s.server.Mount("/chat/*", http.HandlerFunc(serveChat))
	s.server.OnDrain(s.producer.Drain)
	s.server.OnDrain(s.results.Drain)
	return s.server.Listen()
}

// URL is the base of every route.
func (s *Stack) URL() string { return "http://" + s.server.Addr() }

// GRPCAddr is the address of the gRPC API; "" without one.
func (s *Stack) GRPCAddr() string { return s.producer.GRPCAddr() }

// SimulatorURL is where the simulated engine answers; "" with a real one.
func (s *Stack) SimulatorURL() string {
	if s.simulator == nil {
		return ""
	}
	return s.simulator.URL()
}

// Run serves until ctx is done, then drains: requests in flight first, then
// the services, then what they stand on.
func (s *Stack) Run(ctx context.Context) error {
	serving, stopped := context.WithCancel(context.WithoutCancel(ctx))
	defer stopped()
	standing, fall := context.WithCancel(context.WithoutCancel(ctx))
	defer fall()
	var ground errgroup.Group
	if s.store != nil {
		ground.Go(func() error { s.store.Run(standing); return nil })
	}
	if s.simulator != nil {
		ground.Go(func() error { return s.simulator.run(standing) })
	}
	g, failed := errgroup.WithContext(serving)
	g.Go(func() error { return s.producer.Run(failed) })
	g.Go(func() error { return s.worker.Run(failed) })
	g.Go(func() error { return s.results.Run(failed) })
	g.Go(func() error {
		defer stopped()
		until, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(failed, cancel)()
		return s.server.Serve(until)
	})
	err := g.Wait()
	fall()
	return errors.Join(err, s.stack.Stop(context.WithoutCancel(ctx)), ground.Wait())
}

// close gives back what a failed Open has acquired.
func (s *Stack) close(ctx context.Context) error {
	var errs []error
	if s.server != nil {
		errs = append(errs, s.server.Close())
	}
	if s.results != nil {
		errs = append(errs, s.results.Close(ctx))
	}
	if s.worker != nil {
		errs = append(errs, s.worker.Close(ctx))
	}
	if s.producer != nil {
		errs = append(errs, s.producer.Close(ctx))
	}
	return errors.Join(append(errs, s.stack.Stop(ctx))...)
}
