package producer

import (
	"errors"
	"fmt"
	"net"
	"path"
	"time"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/idsecret"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/internal/telemetry"
	"github.com/penstock/penstock/producer/bulk"
	"github.com/penstock/penstock/producer/httpapi"
	"github.com/penstock/penstock/producer/moderation"
)

// The settings that every service shares, under names of their own so that
// Config can embed them; in a file and on the command line they have no prefix.
type (
	HTTPConfig  struct{ httpserver.Config }
	IDConfig    struct{ idsecret.Config }
	AuthConfig  struct{ auth.Config }
	LogConfig   struct{ telemetry.LogConfig }
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
	Bulk  bulk.Config        `koanf:"bulk"`

	Moderation moderation.Config `koanf:"moderation"`

	GRPCListen string `koanf:"grpc_listen" usage:"address of the gRPC API; empty: none"`

	Catalog string `koanf:"catalog" usage:"YAML file of models and pools, the same for producer and worker"`
	Rules   string `koanf:"rules" usage:"YAML file of routing rules; empty: messages without a model go to the first chat model"`

	BufferBytes config.Bytes `koanf:"buffer_bytes" usage:"records that may wait for Kafka; more are refused with 503"`

	TasksPerSecond float64       `koanf:"tasks_per_second" usage:"rate of tasks per tenant and process; 0: no limit"`
	TasksBurst     int           `koanf:"tasks_burst" usage:"tasks a tenant may submit at once"`
	InFlightBytes  config.Bytes  `koanf:"in_flight_bytes" usage:"bytes of request bodies in flight per tenant; 0: no limit"`
	HangUpGrace    time.Duration `koanf:"hang_up_grace" usage:"how long the task of an OpenAI client that went away is kept for its retry, and then cancelled"`
	KeyQueueLimit  int           `koanf:"key_queue_limit" usage:"tasks of a tenant that may wait behind one ordering key; 0: no limit"`
	BacklogCheck   bool          `koanf:"backlog_check" usage:"refuse tasks while the oldest unfinished one is past 80 % of max_task_age"`

	WebhookAllowPrivate bool `koanf:"webhook_allow_private" usage:"take webhooks over http, at any port and at private addresses; the same in producer and resultsvc"`

	SocketOrigins    []string      `koanf:"socket_origins" usage:"hosts whose pages may open a WebSocket besides our own, as example.com or https://*.example.com"`
	SocketLifetime   time.Duration `koanf:"socket_lifetime" usage:"age at which a WebSocket's client is asked to reconnect, give or take a fifth"`
	SocketDrain      time.Duration `koanf:"socket_drain" usage:"time over which a drain spreads its goodbyes to WebSockets; keep below drain_grace"`
	MaxSockets       int           `koanf:"max_sockets" usage:"WebSockets open at once"`
	MaxTenantSockets int           `koanf:"max_tenant_sockets" usage:"WebSockets of one tenant open at once"`

	Sweep     bool          `koanf:"sweep" usage:"end expired tasks that no worker meets"`
	SweepScan time.Duration `koanf:"sweep_scan" usage:"how often the log is looked through for open tasks that Redis does not know"`
}

// maxKeyQueue bounds what is looked at, in one question, when a queue is full.
const maxKeyQueue = 10_000

// maxHangUpGrace bounds how long a task runs for nobody.
const maxHangUpGrace = time.Minute

// DefaultConfig is a service on loopback beside a local Kafka and Redis.
func DefaultConfig() Config {
	c := Config{
		HTTPConfig:    HTTPConfig{httpserver.DefaultConfig()},
		IDConfig:      IDConfig{idsecret.DefaultConfig()},
		LogConfig:     LogConfig{telemetry.DefaultLogConfig()},
		TopicConfig:   TopicConfig{tasktopic.DefaultConfig()},
		Kafka:         kafkaclient.DefaultConfig(),
		Redis:         redisclient.DefaultConfig(),
		Blob:          blob.DefaultConfig(),
		Bulk:          bulk.DefaultConfig(),
		Moderation:    moderation.DefaultConfig(),
		BufferBytes:   64 << 20,
		TasksBurst:    1000,
		InFlightBytes: 256 << 20,
		KeyQueueLimit: 1000,
		HangUpGrace:   httpapi.GraceDefault,
		BacklogCheck:  true,

		SocketLifetime:   time.Hour,
		SocketDrain:      20 * time.Second,
		MaxSockets:       10_000,
		MaxTenantSockets: 5_000,

		Sweep:     true,
		SweepScan: 10 * time.Second,
	}
	c.Kafka.ClientID = "penstock-producer"
	return c
}

// ParseConfig reads file, environment and flags over the defaults.
func ParseConfig(p lifecycle.Proc) (Config, error) {
	c := DefaultConfig()
	err := config.Load(&c, config.Source{
		Name: "penstock-producer", About: "The ingress: accepts inference tasks over HTTP and writes them to Kafka.",
		Args: p.Args, Getenv: p.Getenv, Help: p.Stdout,
	})
	c.BodyLimit = claimcheck.BodyLimit(c.Blob, c.BodyLimit)
	return c, err
}

// Validate returns every fault at once, by the name the operator typed.
func (c *Config) Validate() error {
	errs := []error{c.HTTPConfig.Validate(), c.TopicConfig.Validate(), prefix("kafka_", c.Kafka.Validate()), prefix("blob_", c.Blob.Validate()), prefix("bulk_", c.Bulk.Validate()), prefix("moderation_", c.Moderation.Validate())}
	fault := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	if c.GRPCListen != "" {
		_, _, err := net.SplitHostPort(c.GRPCListen)
		fault(err != nil, "grpc_listen: want host:port, got %q", c.GRPCListen)
	}
	fault(c.BufferBytes < 1<<20, "buffer_bytes: must be at least 1MiB")
	fault(c.TasksPerSecond < 0 || c.InFlightBytes < 0, "tasks_per_second, in_flight_bytes: must not be negative")
	fault(c.TasksPerSecond > 0 && c.TasksBurst < 1, "tasks_burst: must be at least 1 where tasks_per_second is set")
	fault(c.KeyQueueLimit < 0 || c.KeyQueueLimit > maxKeyQueue, "key_queue_limit: must be between 0 and %d", maxKeyQueue)
	fault(c.HangUpGrace <= 0 || c.HangUpGrace > maxHangUpGrace, "hang_up_grace: must be above 0 and at most %s", maxHangUpGrace)
	fault(c.SocketLifetime <= 0 || c.SocketDrain <= 0, "socket_lifetime, socket_drain: must be above 0")
	fault(c.SocketDrain > c.DrainGrace, "socket_drain: must not be above drain_grace (%s)", c.DrainGrace)
	fault(c.MaxSockets < 1 || c.MaxTenantSockets < 1, "max_sockets, max_tenant_sockets: must be at least 1")
	for _, pattern := range c.SocketOrigins {
		_, err := path.Match(pattern, "")
		fault(err != nil, "socket_origins: %q is no pattern", pattern)
	}
	fault(c.SweepScan < time.Second, "sweep_scan: must be at least 1s")
	return errors.Join(errs...)
}

func prefix(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s%w", name, err)
}
