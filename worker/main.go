package worker

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/telemetry"
)

// Main runs a worker as a process of its own until ctx ends, and drains.
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
	reg := telemetry.NewRegistry("worker")
	server := httpserver.New(cfg.HTTPConfig.Config, log, reg)
	w, err := Open(ctx, cfg, Deps{Log: log, Registry: reg, Ready: server.Readiness()})
	if err != nil {
		return err
	}
	if admin := w.Admin(); admin != nil {
		server.AdminMux().Handle("/admin/v1/", admin)
	}
	if err := server.Listen(); err != nil {
		return errors.Join(err, w.Close(context.WithoutCancel(ctx)))
	}
	log.Info("worker is up", "listen", server.Addr(), "admin_listen", server.AdminAddr(), "pools", len(w.pools))
	return serve(ctx, server, w)
}

// serve keeps metrics and health answering until the worker has drained.
func serve(ctx context.Context, server *httpserver.Server, w *Worker) error {
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	working, stopWorking := context.WithCancel(ctx)
	defer stopWorking()
	defer context.AfterFunc(working, server.Readiness().Drain)()
	var g errgroup.Group
	g.Go(func() error {
		defer stopServing()
		return w.Run(working)
	})
	g.Go(func() error {
		defer stopWorking() // a worker that cannot be watched or asked stops
		return server.Serve(serving)
	})
	return g.Wait()
}
