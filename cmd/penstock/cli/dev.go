package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/penstock/penstock/cmd/penstock/demo"
	"github.com/penstock/penstock/cmd/penstock/dev"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/telemetry"
)

// dev runs everything in this process until a signal.
func (e *env) dev() *cobra.Command {
	cfg := dev.DefaultConfig()
	secret, level := string(""), "warn"
	c := &cobra.Command{
		Use: "dev", Short: "Run everything in one process", GroupID: "run", Args: cobra.NoArgs,
		Long: `Runs ingress, worker and results service in this process, on Kafka and Redis inside it
and a simulated engine. Each flag swaps a part for the real one; two processes may share
a real Kafka and Redis. On loopback any bearer token, or none, is tenant dev. Beyond it,
--auth-keys-file and PENSTOCK_ID_SECRET are required. Not for production.`,
		Example: `  penstock dev
  penstock dev --data-dir ./data                             # results survive a restart
  penstock dev --backend http://127.0.0.1:8000               # vLLM, llama.cpp, Ollama …
  penstock dev --kafka 127.0.0.1:9092 --redis redis://127.0.0.1:6379/0`,
		RunE: func(c *cobra.Command, _ []string) error {
			if secret = e.Getenv("PENSTOCK_ID_SECRET"); secret != "" {
				cfg.IDSecret = config.Secret(secret)
			}
			log, err := telemetry.NewLogger(c.ErrOrStderr(), level, "text")
			if err != nil {
				return err
			}
			stack, err := dev.Open(c.Context(), cfg, log)
			if err != nil {
				return err
			}
			stack.Banner(c.OutOrStdout())
			return stack.Run(c.Context())
		},
	}
	f := c.Flags()
	f.StringVar(&cfg.Listen, "listen", cfg.Listen, "address of every route")
	f.StringVar(&cfg.GRPC, "grpc-listen", "", "address of the gRPC API, or none; default: port 9090 beside 8080, else a free one")
	f.StringVar(&cfg.DataDir, "data-dir", "", "directory that keeps the log across restarts; default: memory")
	f.StringVar(&cfg.Kafka, "kafka", "", "a real Kafka, host:port, comma separated")
	f.StringVar(&cfg.Redis, "redis", "", "a real Redis, as redis://host:port/0")
	f.StringVar(&cfg.Blobs, "blobs", "", "where large payloads and results are kept: file:///dir or s3://bucket/prefix?…; default: beside the log, with --kafka nowhere")
	f.StringVar(&cfg.Backend, "backend", "", "a real engine: http://…, openai+http://… or json+http://…")
	f.StringVar(&cfg.AuthKeysFile, "auth-keys-file", "", "YAML file of API keys")
	f.StringVar(&level, "log-level", level, "debug, info, warn or error")
	return c
}

// demo is the guided tour.
func (e *env) demo() *cobra.Command {
	var level string
	c := &cobra.Command{
		Use: "demo", Short: "The guided tour: batch work, a stream, a dead letter and its redrive", GroupID: "run", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := telemetry.NewLogger(c.ErrOrStderr(), level, "text")
			if err != nil {
				return err
			}
			if err := demo.Run(c.Context(), c.OutOrStdout(), log); err != nil {
				return fmt.Errorf("demo: %w", err)
			}
			return nil
		},
	}
	c.Flags().StringVar(&level, "log-level", "error", "debug, info, warn or error")
	return c
}
