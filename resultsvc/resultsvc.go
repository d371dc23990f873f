// Package resultsvc is the results service as one piece: the projector that
// fills Redis from Kafka, the courier that calls webhooks, the follower that brings live events and the log's
// end, and the routes that read: poll, list and event streams.
//
// Order of a stop: the HTTP server stops taking requests and Drain makes long
// polls answer and asks event streams to reconnect; then Run's context ends,
// positions are committed, and the clients close.
package resultsvc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/convstore"
	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/resultsvc/httpapi"
	"github.com/penstock/penstock/resultsvc/poll"
	"github.com/penstock/penstock/resultsvc/project"
	"github.com/penstock/penstock/resultsvc/sse"
	"github.com/penstock/penstock/resultsvc/webhook"
)

// Deps are what a Service shares with its process. Only Log and Registry are
// required.
type Deps struct {
	Log      *slog.Logger
	Registry prometheus.Registerer
	Ready    *lifecycle.Readiness // told when Kafka and Redis have answered
	Auth     auth.Authenticator   // default: the API keys of the configuration, else everybody is tenant dev

	// WebhookDial is the way to receivers of webhooks, for tests. Default: one that
	// keeps to what the configuration allows.
	WebhookDial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Service is the results service. Its routes are added to an Echo by Register.
type Service struct {
	*httpapi.API

	cfg       Config
	log       *slog.Logger
	ready     *lifecycle.Readiness
	auth      auth.Authenticator
	follower  *follow.Follower
	results   *project.Projector[taskstore.Applied]
	memories  *project.Projector[convstore.Applied]
	courier   *webhook.Courier
	store     *taskstore.Store
	publisher *tasktopic.Publisher                   // writes what becomes of webhooks
	tail      func(context.Context) error            // reads the log's end
	pings     map[string]func(context.Context) error // of Kafka and Redis
	stack     lifecycle.Stack
}

const (
	openTimeout = 30 * time.Second
	pingEvery   = time.Second // until both have answered

	webhookBuffer = 16 << 20 // bytes that may wait to be written
)

// Open connects to Kafka and checks the results topic, creating it if it is
// missing. Redis may be down. On error nothing is left open.
func Open(ctx context.Context, cfg Config, d Deps) (_ *Service, err error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	s := &Service{cfg: cfg, log: d.Log, ready: d.Ready, auth: d.Auth, pings: map[string]func(context.Context) error{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stack.Stop(context.WithoutCancel(ctx)))
		}
	}()
	if s.ready == nil {
		s.ready = new(lifecycle.Readiness)
	}
	if s.auth == nil {
		if s.auth, err = cfg.AuthConfig.Open(cfg.Listen); err != nil {
			return nil, err
		}
	}
	results, _, err := claimcheck.Open(ctx, cfg.Blob, claimcheck.Deps{Service: "resultsvc", Registry: d.Registry, Log: d.Log})
	if err != nil {
		return nil, err
	}
	if err := s.wire(d.Registry, results); err != nil {
		return nil, err
	}
	if err := s.openKafka(ctx); err != nil {
		return nil, err
	}
	return s, s.openWebhooks(ctx, d)
}

// wire connects to Redis when first needed and builds what stands on it.
func (s *Service) wire(reg prometheus.Registerer, results *claimcheck.Desk) error {
	minter, err := s.cfg.IDConfig.Minter(s.cfg.Listen)
	if err != nil {
		return err
	}
	tickets, err := s.cfg.IDConfig.Tickets()
	if err != nil {
		return err
	}
	rdb, err := redisclient.New(s.cfg.Redis)
	if err != nil {
		return err
	}
	s.stack.PushClose("redis", rdb.Close)
	s.pings["redis"] = func(ctx context.Context) error { return rdb.Ping(ctx).Err() }
	s.store = taskstore.New(rdb, taskstore.Params{Partitions: s.cfg.Partitions, TTL: s.cfg.ResultTTL, MaxAge: s.cfg.MaxTaskAge})
	events := eventlog.New(rdb, eventlog.Params{Partitions: s.cfg.Partitions, TTL: s.cfg.ResultTTL})
	s.follower = follow.New(s.store, events, follow.Params{
		Service: "resultsvc", Heartbeat: s.cfg.StreamHeartbeat, Log: s.log, Registry: reg,
	})
	s.results = project.New(project.Results(s.store), project.Params{}, s.log, reg)
	s.memories = project.New(project.Conversations(convstore.New(rdb, s.cfg.conversations())), project.Params{}, s.log, reg)
	streams := sse.New(s.store, s.follower, minter, sse.Params{
		Heartbeat: s.cfg.StreamHeartbeat, WriteTimeout: s.cfg.StreamWriteTimeout, Lifetime: s.cfg.StreamLifetime,
		DrainSpread: s.cfg.StreamDrain, Streams: s.cfg.MaxStreams, PerTenant: s.cfg.MaxTenantStreams,
		Results: results,
	}, s.log, reg)
	s.API = httpapi.New(s.auth, tickets, poll.New(s.store, s.follower, results, minter), streams)
	return nil
}

// openKafka checks the results topic, over the client that will read its end.
func (s *Service) openKafka(ctx context.Context) error {
	cl, err := kafkaclient.New(s.cfg.Kafka, s.log)
	if err != nil {
		return err
	}
	s.stack.PushClose("kafka", func() error { cl.Close(); return nil })
	s.pings["kafka"] = cl.Ping
	s.tail = func(ctx context.Context) error { return s.follower.RunTail(ctx, cl) }
	return s.cfg.TopicConfig.EnsureResults(ctx, cl, s.log)
}

// openWebhooks builds what calls webhooks. It writes, so it needs the brokers'
// time.
func (s *Service) openWebhooks(ctx context.Context, d Deps) error {
	writer, err := kafkaclient.New(s.cfg.Kafka, s.log, kafkaclient.ProducerOpts(webhookBuffer)...)
	if err != nil {
		return err
	}
	s.stack.PushClose("webhook writer", func() error { writer.Close(); return nil })
	s.publisher = tasktopic.NewPublisher(writer, tasktopic.Params{ResultsPartitions: s.cfg.Partitions})
	if err := s.publisher.Sync(ctx); err != nil {
		return err
	}
	keys, err := s.cfg.WebhookKeys()
	if err != nil {
		return err
	}
	p := s.cfg.webhooks(s.store.Params().Gone)
	p.Dial = d.WebhookDial
	s.courier = webhook.New(webhook.Deps{
		Publisher: s.publisher, Logs: s.store, Keys: keys, Kafka: s.cfg.Kafka, Log: s.log, Registry: d.Registry,
	}, p)
	return nil
}

// Follower is the process's own: in one process with a producer, both use it.
func (s *Service) Follower() *follow.Follower { return s.follower }

// Run works until ctx ends, then closes the service. Its context should end
// after the HTTP server has drained. Redis and Kafka may come and go.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.results.Run(ctx, s.cfg.Kafka) })
	g.Go(func() error { return s.memories.Run(ctx, s.cfg.Kafka) })
	g.Go(func() error { return s.follower.Run(ctx) })
	g.Go(func() error { return s.tail(ctx) })
	g.Go(func() error { s.publisher.KeepTime(ctx, s.log); return nil })
	g.Go(func() error { return s.courier.Run(ctx) })
	g.Go(func() error { s.announce(ctx); return nil })
	err := g.Wait()
	s.Drain()
	return errors.Join(err, s.Close(context.WithoutCancel(ctx)))
}

// announce makes the process ready once Kafka and Redis have answered. It stays
// ready when either goes away later: what can be read without them is worth
// reading, and every instance would go at once.
func (s *Service) announce(ctx context.Context) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for len(s.pings) > 0 {
		for name, ping := range s.pings {
			short, cancel := context.WithTimeout(ctx, pingEvery)
			err := ping(short)
			cancel()
			if s.ready.Set(name, err); err == nil {
				delete(s.pings, name)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Close closes the clients. Only a Service that is not run needs it; a second
// call does nothing.
func (s *Service) Close(ctx context.Context) error {
	if err := s.stack.Stop(ctx); err != nil {
		return fmt.Errorf("close resultsvc: %w", err)
	}
	return nil
}
