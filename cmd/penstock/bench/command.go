package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/cmd/penstock/bench/bare"
	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/redisclient"
)

// Command is the verb `bench` with its kinds of load. Connect returns a client
// of the system that the global flags name, workplace the directories of the
// services' binaries and of their logs.
func Command(connect func() (*client.Client, error), workplace func(verb string) (bin, dir string, err error)) *cobra.Command {
	c := &cobra.Command{
		Use: "bench", Short: "Measure a running system, as ratios to the least that could do the job", GroupID: "operate",
	}
	c.AddCommand(acceptCommand(connect), endToEndCommand(connect), goodputCommand(connect), rebuildCommand(), bareCommand(), bareEventsCommand(),
		streamsCommand(workplace), allCommand(workplace))
	return c
}

// loadFlags adds the flags of a load.
func loadFlags(c *cobra.Command, l *Load, length time.Duration) {
	f := c.Flags()
	f.IntVar(&l.Clients, "clients", 64, "callers of the closed loop: each calls again once it is answered")
	f.DurationVar(&l.Length, "duration", length, "how long calls are begun")
	f.Uint64Var(&l.Seed, "seed", 1, "of the open loop's arrivals")
}

func acceptCommand(connect func() (*client.Client, error)) *cobra.Command {
	var a Accept
	var kafka []string
	c := &cobra.Command{
		Use: "accept", Short: "Accepted tasks a second, with the bare handler beside it", Args: cobra.NoArgs,
		Example: "  penstock bench accept --kafka 127.0.0.1:9092      # in turns with the bare handler\n  penstock bench accept --rate 500                  # open loop, percentiles",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := connect()
			if err != nil {
				return err
			}
			a.System = cl.API()
			if len(kafka) > 0 {
				child, err := startBare(c.Context(), kafka)
				if err != nil {
					return err
				}
				defer child.stop()
				a.Bare = child.url
			}
			report, err := a.Run(c.Context())
			if err != nil {
				return err
			}
			return report.table(c.OutOrStdout(), a.Parts)
		},
	}
	loadFlags(c, &a.Load, 3*time.Second)
	c.Flags().Float64Var(&a.Load.Rate, "rate", 0, "calls a second of an open loop; 0: closed loop")
	c.Flags().IntVar(&a.Rounds, "rounds", 5, "turns of each side; the ratio is the median of the rounds")
	c.Flags().StringSliceVar(&kafka, "kafka", nil, "the system's broker, for the bare handler; without it the system is measured alone")
	return c
}

func endToEndCommand(connect func() (*client.Client, error)) *cobra.Command {
	var b EndToEnd
	var pids []string
	c := &cobra.Command{
		Use: "e2e", Short: "Tasks delivered a second: submit, follow over one SSE connection, next", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := connect()
			if err != nil {
				return err
			}
			b.Client = cl
			if b.Parts, err = parseParts(pids); err != nil {
				return &lifecycle.UsageError{Err: err}
			}
			report, err := b.Run(c.Context())
			if err != nil {
				return err
			}
			return report.table(c.OutOrStdout(), b.Parts)
		},
	}
	loadFlags(c, &b.Load, 15*time.Second)
	c.Flags().IntVar(&b.Tasks, "tasks", 16, "tasks of a client at once")
	c.Flags().StringSliceVar(&pids, "pid", nil, "name=pid of a process whose processor time is told apart; may be repeated")
	return c
}

func goodputCommand(connect func() (*client.Client, error)) *cobra.Command {
	g := Goodput{}
	c := &cobra.Command{
		Use: "goodput", Short: "Share answered within a limit at Poisson load, beside an oracle's on the same arrivals", Args: cobra.NoArgs,
		Long: "The system's backend must be `penstock simulate` with the same --base, --item and --max.",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := connect()
			if err != nil {
				return err
			}
			g.System = cl.API()
			report, err := g.Run(c.Context())
			if err != nil {
				return err
			}
			return report.table(c.OutOrStdout(), g.Limit)
		},
	}
	f := c.Flags()
	f.DurationVar(&g.GPU.Base, "base", 20*time.Millisecond, "cost of a backend call")
	f.DurationVar(&g.GPU.Item, "item", time.Millisecond, "cost of each item of a call")
	f.IntVar(&g.GPU.Max, "max", 32, "items of a call at most")
	f.Float64Var(&g.Share, "share", 0.8, "of the backend's capacity that arrives")
	f.DurationVar(&g.Limit, "limit", 500*time.Millisecond, "latency within which an answer is good")
	f.DurationVar(&g.Length, "duration", 20*time.Second, "how long tasks arrive")
	f.Uint64Var(&g.Seed, "seed", 1, "of the arrivals")
	return c
}

func rebuildCommand() *cobra.Command {
	var b Rebuild
	c := &cobra.Command{
		Use: "rebuild", Short: "Results a second with which a lost Redis comes back, beside a plain client that writes them", Args: cobra.NoArgs,
		Long: "Empties the Redis that is named and fills penstock.results: name servers that nobody else uses.",
		RunE: func(c *cobra.Command, _ []string) error {
			if len(b.Kafka) == 0 || b.Redis == "" {
				return &lifecycle.UsageError{Err: errors.New("name the servers with --kafka and --redis")}
			}
			log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
			report, err := b.Run(c.Context(), log)
			if err != nil {
				return err
			}
			return report.table(c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.StringSliceVar(&b.Kafka, "kafka", nil, "bootstrap addresses, host:port")
	f.StringVar(&b.Redis, "redis", "", "URL of the Redis to empty")
	f.Int32Var(&b.Partitions, "partitions", 12, "of penstock.results")
	f.IntVar(&b.Results, "results", 200_000, "results to write first")
	f.IntVar(&b.Bytes, "bytes", 700, "text of a result; with the rest of it about 1 KiB at 700")
	return c
}

func bareCommand() *cobra.Command {
	var kafka []string
	var listen string
	c := &cobra.Command{
		Use: "bare", Short: "Serve the yardstick: a handler that only produces with acks=all", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
			h, err := bare.Open(c.Context(), kafka, log)
			if err != nil {
				return err
			}
			defer h.Close()
			ln, err := net.Listen("tcp", listen)
			if err != nil {
				return fmt.Errorf("listen: %w", err)
			}
			fmt.Fprintf(c.OutOrStdout(), "http://%s\n", ln.Addr())
			return h.Serve(c.Context(), ln)
		},
	}
	c.Flags().StringSliceVar(&kafka, "kafka", []string{"127.0.0.1:9092"}, "bootstrap addresses, host:port")
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "address")
	return c
}

func bareEventsCommand() *cobra.Command {
	var listen, feed string
	c := &cobra.Command{
		Use: "bare-sse", Short: "Serve the yardstick of streams: Server-Sent Events on net/http alone", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ln, err := net.Listen("tcp", listen)
			if err != nil {
				return fmt.Errorf("listen: %w", err)
			}
			events := &bare.Events{Plan: func(rate float64, length time.Duration) []time.Duration { return Poisson(rate, length, 1) }}
			g, ctx := errgroup.WithContext(c.Context())
			if feed != "" {
				rdb, err := redisclient.New(redisclient.Config{URL: config.Secret(feed), PoolSize: 2})
				if err != nil {
					return errors.Join(err, ln.Close())
				}
				defer rdb.Close()
				g.Go(func() error { return events.Feed(ctx, rdb) })
			}
			fmt.Fprintf(c.OutOrStdout(), "http://%s\n", ln.Addr())
			g.Go(func() error { return events.Serve(ctx, ln) })
			return g.Wait()
		},
	}
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "address")
	c.Flags().StringVar(&feed, "feed", "", "URL of a Redis from which events come as well; empty: from none")
	return c
}

// parseParts reads name=pid pairs; the benchmark itself is the client.
func parseParts(pids []string) ([]Part, error) {
	parts := []Part{{"client", os.Getpid()}}
	for _, text := range pids {
		name, number, _ := strings.Cut(text, "=")
		pid, err := strconv.Atoi(number)
		if err != nil || name == "" {
			return nil, fmt.Errorf("--pid %q: want name=pid", text)
		}
		parts = append(parts, Part{name, pid})
	}
	return parts, nil
}

// startBare runs this very binary as the yardstick, in a process of its own.
func startBare(ctx context.Context, kafka []string) (*bareChild, error) {
	return startSelf(ctx, "bench", "bare", "--kafka", strings.Join(kafka, ","))
}

func startSelf(ctx context.Context, args ...string) (*bareChild, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own binary: %w", err)
	}
	return startChild(ctx, self, args...)
}
