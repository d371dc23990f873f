package resultsvc

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/internal/callback"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/convstore"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/idsecret"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/internal/telemetry"
	"github.com/penstock/penstock/resultsvc/webhook"
	"github.com/penstock/penstock/schema/task"
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

	PublicURL           string        `koanf:"public_url" usage:"base URL at which clients reach the API, for links in webhooks; empty: links are paths"`
	WebhookAllowPrivate bool          `koanf:"webhook_allow_private" usage:"call webhooks over http, at any port and at private addresses; the same in producer and resultsvc"`
	WebhookTimeout      time.Duration `koanf:"webhook_timeout" usage:"time a receiver of a webhook may take to answer"`
	WebhookConcurrency  int           `koanf:"webhook_concurrency" usage:"webhooks called at once"`
	WebhookPerHost      int           `koanf:"webhook_per_host" usage:"of these, at one host and port"`
	WebhookMaxTasks     int           `koanf:"webhook_max_tasks" usage:"tasks with webhooks that a process keeps; beyond it an alarm is raised and ends go untold"`
	WebhookMaxPending   int           `koanf:"webhook_max_pending" usage:"deliveries that wait for another attempt; beyond it those that failed most often are given up"`
	WebhookMaxBytes     config.Bytes  `koanf:"webhook_max_bytes" usage:"size of the events of these; beyond it likewise"`

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

		WebhookTimeout:     15 * time.Second,
		WebhookConcurrency: 64,
		WebhookPerHost:     8,
		WebhookMaxTasks:    1_000_000,
		WebhookMaxPending:  50_000,
		WebhookMaxBytes:    256 << 20,

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
	fault(c.WebhookTimeout < time.Second || c.WebhookTimeout > time.Minute, "webhook_timeout: must be 1s to 1m")
	fault(c.WebhookConcurrency < 1 || c.WebhookPerHost < 1, "webhook_concurrency, webhook_per_host: must be at least 1")
	fault(c.WebhookMaxTasks < 1 || c.WebhookMaxPending < 1 || c.WebhookMaxBytes < 1, "webhook_max_tasks, webhook_max_pending, webhook_max_bytes: must be at least 1")
	if c.PublicURL != "" {
		u, err := url.Parse(c.PublicURL)
		fault(err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https", "public_url: want a URL such as https://penstock.example.com")
	}
	return errors.Join(errs...)
}

// conversations is how their projection lies in Redis.
func (c *Config) conversations() convstore.Params {
	return convstore.Params{Partitions: c.Partitions, Life: c.MaxTaskAge + c.ResultTTL}
}

// webhooks is what the courier is told. gone says whose results count no more.
func (c *Config) webhooks(gone func(task.ID, time.Time) bool) webhook.Params {
	base := strings.TrimSuffix(c.PublicURL, "/")
	return webhook.Params{
		Policy:    callback.Policy{AllowPrivate: c.WebhookAllowPrivate},
		StatusURL: func(id task.ID) string { return base + "/v1/tasks/" + string(id) },
		Gone:      gone,
		Timeout:   c.WebhookTimeout, Concurrency: c.WebhookConcurrency, PerHost: c.WebhookPerHost,
		MaxEntries: c.WebhookMaxTasks, MaxDeliveries: c.WebhookMaxPending, MaxBytes: int(c.WebhookMaxBytes),
	}
}
