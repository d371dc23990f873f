package resultsvc

import (
	"errors"
	"fmt"
	"time"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/idsecret"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/internal/telemetry"
)

// The settings that every service shares, under names of their own so that
// Config can embed them; in a file and on the command line they have no prefix.
type (
	HTTPConfig struct{ httpserver.Config }
	IDConfig   struct{ idsecret.Config }
	AuthConfig struct{ auth.Config }
	LogConfig  struct{ telemetry.LogConfig }

	TopicConfig struct{ tasktopic.Config }
)

// Config is the operator's.
type Config struct {
	HTTPConfig
	IDConfig
	AuthConfig
	LogConfig
	TopicConfig
	Kafka kafkaclient.Config `koanf:"kafka"`
	Redis redisclient.Config `koanf:"redis"`
	Blob  blob.Config        `koanf:"blob"`

	StreamHeartbeat    time.Duration `koanf:"stream_heartbeat" usage:"time between heartbeats on an event stream"`
	StreamWriteTimeout time.Duration `koanf:"stream_write_timeout" usage:"time a client may take for one event before it is cut"`
	StreamLifetime     time.Duration `koanf:"stream_lifetime" usage:"age at which a client is asked to reconnect, give or take a fifth"`
	StreamDrain        time.Duration `koanf:"stream_drain" usage:"time over which a drain spreads its goodbyes; keep below drain_grace"`
	MaxStreams         int           `koanf:"max_streams" usage:"event streams open at once"`
	MaxTenantStreams   int           `koanf:"max_tenant_streams" usage:"event streams of one tenant open at once"`
}

// DefaultConfig is a service on loopback beside a local Kafka and Redis.
func DefaultConfig() Config {
	c := Config{
		HTTPConfig:  HTTPConfig{httpserver.DefaultConfig()},
		IDConfig:    IDConfig{idsecret.DefaultConfig()},
		LogConfig:   LogConfig{telemetry.DefaultLogConfig()},
		TopicConfig: TopicConfig{tasktopic.DefaultConfig()},
		Kafka:       kafkaclient.DefaultConfig(),
		Redis:       redisclient.DefaultConfig(),
		Blob:        blob.DefaultConfig(),

		StreamHeartbeat:    15 * time.Second,
		StreamWriteTimeout: 8 * time.Second,
		StreamLifetime:     time.Hour,
		StreamDrain:        20 * time.Second,
		MaxStreams:         20_000,
		MaxTenantStreams:   10_000,
	}
	c.Listen = "127.0.0.1:8081" // beside a producer on the same machine
	c.Kafka.ClientID = "penstock-resultsvc"
	return c
}

// ParseConfig reads file, environment and flags over the defaults.
func ParseConfig(p lifecycle.Proc) (Config, error) {
	c := DefaultConfig()
	err := config.Load(&c, config.Source{
		Name: "penstock-resultsvc", About: "The results service: fills Redis from penstock.results and serves polls, lists and event streams.",
		Args: p.Args, Getenv: p.Getenv, Help: p.Stdout,
	})
	return c, err
}

// Validate returns every fault at once, by the name the operator typed.
func (c *Config) Validate() error {
	errs := []error{c.HTTPConfig.Validate(), c.TopicConfig.Validate()}
	if err := c.Kafka.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("kafka_%w", err))
	}
	if err := c.Blob.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("blob_%w", err))
	}
	fault := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	fault(c.StreamHeartbeat < time.Second, "stream_heartbeat: must be at least 1s")
	fault(c.StreamWriteTimeout <= 0 || c.StreamLifetime <= 0 || c.StreamDrain <= 0, "stream_write_timeout, stream_lifetime, stream_drain: must be above 0")
	fault(c.StreamDrain > c.DrainGrace, "stream_drain: must not be above drain_grace (%s), which cuts what is left", c.DrainGrace)
	fault(c.MaxStreams < 1 || c.MaxTenantStreams < 1, "max_streams, max_tenant_streams: must be at least 1")
	return errors.Join(errs...)
}
