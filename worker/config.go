package worker

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/internal/telemetry"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/worker/recall"
	"github.com/penstock/penstock/worker/retry"
)

// The settings that every service shares, under names of their own so that
// Config can embed them; in a file and on the command line they have no prefix.
type (
	HTTPConfig  struct{ httpserver.Config }
	LogConfig   struct{ telemetry.LogConfig }
	TopicConfig struct{ tasktopic.Config }
)

// Config is the operator's.
type Config struct {
	HTTPConfig // drain_grace is also what running attempts have to finish
	LogConfig
	TopicConfig
	Kafka kafkaclient.Config `koanf:"kafka"`
	Redis redisclient.Config `koanf:"redis"`
	Blob  blob.Config        `koanf:"blob"`

	Catalog string   `koanf:"catalog" usage:"YAML file of models and pools, the same for producer and worker"`
	Pools   []string `koanf:"pools" usage:"pools of the catalog that this worker serves, comma separated; empty: all"`
	Name    string   `koanf:"worker_name" usage:"name of this worker in the history of attempts; default: the host's"`

	BufferBytes config.Bytes `koanf:"buffer_bytes" usage:"records that may wait for Kafka"`

	AttemptTimeout time.Duration `koanf:"attempt_timeout" usage:"longest one attempt may take"`
	FirstToken     time.Duration `koanf:"first_token_timeout" usage:"longest wait for a stream's first token; 0: attempt_timeout"`
	Idle           time.Duration `koanf:"idle_timeout" usage:"longest silence of a stream between two tokens"`
	TokenEvery     time.Duration `koanf:"token_interval" usage:"how long tokens are gathered before they are written, 0 to 500ms"`

	SessionTokens int `koanf:"session_max_tokens" usage:"tokens that the messages of a task may have with those of its session, where that says nothing"`

	RetryBase time.Duration `koanf:"retry_base" usage:"longest wait after a task's first failed attempt; it doubles with each"`
	RetryCap  time.Duration `koanf:"retry_cap" usage:"longest wait between two attempts"`

	InFlightRecords int           `koanf:"in_flight_records" usage:"records of one pool that are taken and not settled"`
	InFlightBytes   config.Bytes  `koanf:"in_flight_bytes" usage:"the same, in bytes"`
	CommitInterval  time.Duration `koanf:"commit_interval" usage:"time between two commits"`

	Mover      bool          `koanf:"mover" usage:"also take records out of the retry tiers; some worker must"`
	Redrive    bool          `koanf:"redrive" usage:"also keep the dead-letter index and run redrive jobs; some worker must"`
	AdminToken config.Secret `koanf:"admin_token" usage:"bearer token of the operator routes on admin_listen; empty: loopback only"`
}

// DefaultConfig is a worker beside a local Kafka and Redis.
func DefaultConfig() Config {
	c := Config{
		HTTPConfig:  HTTPConfig{httpserver.DefaultConfig()},
		LogConfig:   LogConfig{telemetry.DefaultLogConfig()},
		TopicConfig: TopicConfig{tasktopic.DefaultConfig()},
		Kafka:       kafkaclient.DefaultConfig(),
		Redis:       redisclient.DefaultConfig(),
		Blob:        blob.DefaultConfig(),

		BufferBytes: 64 << 20,

		AttemptTimeout: 2 * time.Minute,
		Idle:           30 * time.Second,
		TokenEvery:     40 * time.Millisecond,

		SessionTokens: recall.DefaultMaxTokens,

		RetryBase: retry.Default().Base,
		RetryCap:  retry.Default().Cap,

		InFlightRecords: 8192,
		InFlightBytes:   64 << 20,
		CommitInterval:  time.Second,

		Mover: true, Redrive: true,
	}
	c.Listen, c.AdminListen, c.DrainGrace = "127.0.0.1:8082", "127.0.0.1:8092", 25*time.Second
	c.Kafka.ClientID = "penstock-worker"
	c.Name, _ = os.Hostname() // only a label; empty is fine
	return c
}

// backoff is the policy of waits between attempts.
func (c *Config) backoff() retry.Policy {
	p := retry.Default()
	p.Base, p.Cap = c.RetryBase, c.RetryCap
	return p
}

// ParseConfig reads file, environment and flags over the defaults.
func ParseConfig(p lifecycle.Proc) (Config, error) {
	c := DefaultConfig()
	err := config.Load(&c, config.Source{
		Name: "penstock-worker", About: "Runs inference tasks from Kafka on backends.",
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
	fault(c.BufferBytes < 1<<20, "buffer_bytes: must be at least 1MiB")
	fault(c.AttemptTimeout <= 0, "attempt_timeout: must be above 0")
	fault(c.FirstToken < 0, "first_token_timeout: must not be negative")
	fault(c.Idle <= 0, "idle_timeout: must be above 0")
	fault(c.TokenEvery < 0 || c.TokenEvery > 500*time.Millisecond, "token_interval: must be 0 to 500ms")
	fault(c.SessionTokens < 1 || c.SessionTokens > api.MaxSessionTokens, "session_max_tokens: must be 1 to %d", api.MaxSessionTokens)
	fault(c.RetryBase <= 0 || c.RetryCap < c.RetryBase, "retry_base, retry_cap: must be above 0, and the cap not below the base")
	fault(c.InFlightRecords < 1, "in_flight_records: must be at least 1")
	fault(c.InFlightBytes < 1<<20, "in_flight_bytes: must be at least 1MiB")
	fault(c.CommitInterval <= 0, "commit_interval: must be above 0")
	return errors.Join(errs...)
}
