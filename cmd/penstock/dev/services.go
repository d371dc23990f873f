package dev

import (
	"context"
	"net"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/producer"
	"github.com/penstock/penstock/resultsvc"
	"github.com/penstock/penstock/worker"
)

// openServices opens the three services as their own processes would, with one
// catalog, one registry and one listener for all.
func (s *Stack) openServices(ctx context.Context) (err error) {
	s.server = httpserver.New(s.httpConfig(), s.log, s.reg)
	if s.results, err = resultsvc.Open(ctx, s.resultsConfig(), resultsvc.Deps{
		Log: s.log, Registry: s.reg, Ready: s.server.Readiness(), Auth: s.auth,
	}); err != nil {
		return err
	}
	if s.producer, err = producer.Open(ctx, s.producerConfig(), producer.Deps{
		Log: s.log, Registry: s.reg, Ready: s.server.Readiness(), Auth: s.auth, Catalog: s.models, Follower: s.results.Follower(),
	}); err != nil {
		return err
	}
	// The worker's readiness is its own: requests are wanted before it has
	// joined its group, because they wait in Kafka.
	s.worker, err = worker.Open(ctx, s.workerConfig(), worker.Deps{Log: s.log, Registry: s.reg, Catalog: s.models})
	return err
}

// privateWebhooks lets webhooks go to this machine's own programs, if none but
// they can ask for it.
func (s *Stack) privateWebhooks() bool { return auth.CheckBind(auth.Dev{}, s.cfg.Listen) == nil }

// publicURL is where webhooks say that a task can be read; empty: a path, when
// the port is not known yet.
func (s *Stack) publicURL() string {
	if _, port, err := net.SplitHostPort(s.cfg.Listen); err != nil || port == "0" {
		return ""
	}
	return "http://" + s.cfg.Listen
}

func (s *Stack) producerConfig() producer.Config {
	c := producer.DefaultConfig()
	c.HTTPConfig.Config, c.IDConfig.ID = s.httpConfig(), s.cfg.IDSecret
	c.Kafka, c.Redis, c.Blob = s.kafka, s.redis, s.blobs
	c.Retention, c.MaxTaskAge, c.ResultTTL = s.cfg.retention(), s.cfg.retention()/2, resultTTL
	c.BacklogCheck, c.GRPCListen = false, s.cfg.grpcListen()
	c.WebhookAllowPrivate = s.privateWebhooks()
	if s.simulator != nil {
		c.Moderation.URL = s.simulator.URL() + "/v1/moderations"
	}
	c.SocketDrain = drainGrace / 2
	return c
}

func (s *Stack) workerConfig() worker.Config {
	c := worker.DefaultConfig()
	c.HTTPConfig.Config = s.httpConfig()
	c.Kafka, c.Redis, c.Blob = s.kafka, s.redis, s.blobs
	c.Retention, c.MaxTaskAge, c.ResultTTL = s.cfg.retention(), s.cfg.retention()/2, resultTTL
	c.RetryBase, c.RetryCap = s.cfg.RetryBase, s.cfg.RetryMax
	return c
}

func (s *Stack) resultsConfig() resultsvc.Config {
	c := resultsvc.DefaultConfig()
	c.HTTPConfig.Config, c.IDConfig.ID = s.httpConfig(), s.cfg.IDSecret
	c.Kafka, c.Redis, c.Blob = s.kafka, s.redis, s.blobs
	c.Retention, c.MaxTaskAge, c.ResultTTL = s.cfg.retention(), s.cfg.retention()/2, resultTTL
	c.StreamDrain = drainGrace / 2
	c.WebhookAllowPrivate, c.PublicURL = s.privateWebhooks(), s.publicURL()
	return c
}
