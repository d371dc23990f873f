package producer

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/telemetry"
)

// Main runs the ingress as a process of its own until ctx ends, and drains.
func Main(ctx context.Context, p lifecycle.Proc) error {
	cfg, err := ParseConfig(p)
	if err != nil {
		return err
	}
	log, flush, err := cfg.LogConfig.OpenBuffered(p.Stderr)
	if err != nil {
		return err
	}
	defer func() { _ = flush() }() // a log that cannot be written has nobody to tell
	reg := telemetry.NewRegistry("producer")
	server := httpserver.New(cfg.HTTPConfig.Config, log, reg)
	server.Readiness().Set("kafka", errors.New("not asked yet"))
	s, err := Open(ctx, cfg, Deps{Log: log, Registry: reg, Ready: server.Readiness()})
	if err != nil {
		return err
	}
	s.Register(server.Echo())
	server.OnDrain(s.Drain)
	if err := server.Listen(); err != nil {
		return errors.Join(err, s.Close(context.WithoutCancel(ctx)))
	}
	log.Info("producer is up", "listen", server.Addr(), "admin_listen", server.AdminAddr(), "grpc_listen", s.GRPCAddr())
	return serve(ctx, server, s)
}

// serve ends the service only after the server has drained: requests in flight
// still need it.
func serve(ctx context.Context, server *httpserver.Server, s *Service) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var g errgroup.Group
	g.Go(func() error { return s.Run(running) })
	g.Go(func() error {
		defer stop()
		return server.Serve(ctx)
	})
	return g.Wait()
}
