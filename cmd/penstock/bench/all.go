package bench

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/telemetry"
)

// Targets of the ratios.
const (
	targetAccept   = 0.7
	targetEndToEnd = 0.1
	targetGoodput  = 0.95
)

// All runs the measurements one after another, each on services of its own kind
// started for it, and prints their tables.
type All struct {
	Params system.Params
	Parts  []Part // servers that somebody else runs: Kafka, Redis
	Turn   time.Duration
	Out    io.Writer
	Notes  io.Writer
}

// AllReport is what came out.
type AllReport struct {
	Accept   AcceptReport
	EndToEnd EndToEndReport
	Goodput  GoodputReport
	Streams  StreamsReport
	Parts    []Part // of EndToEnd
	// AcceptParts are those of Accept: the bare handler instead of what works
	// behind the ingress.
	AcceptParts []Part
	GPU         GPU
	Limit       time.Duration
}

// Run measures. What leaves a backlog that nobody works off comes last: the
// accepting, and the streams that wait for nothing.
func (a All) Run(ctx context.Context) (AllReport, error) {
	out := AllReport{GPU: GPU{Base: 20 * time.Millisecond, Item: time.Millisecond, Max: 32}, Limit: 500 * time.Millisecond}
	s := Streams{Params: a.Params, Turn: a.Turn, Crowd: crowdStreams, Notes: a.Notes}
	err := enoughFiles(s.Crowd)
	if err == nil {
		err = a.goodput(ctx, &out)
	}
	if err == nil {
		out.Streams.Answers, err = s.answers(ctx)
	}
	if err == nil {
		err = a.rates(ctx, &out)
	}
	if err == nil {
		err = s.crowds(ctx, &out.Streams)
	}
	return out, err
}

func (a All) goodput(ctx context.Context, out *AllReport) error {
	fmt.Fprintln(a.Notes, "goodput: Poisson arrivals at 80 % of the simulated GPU's capacity …")
	p := a.Params
	p.Simulate = []string{"--base", out.GPU.Base.String(), "--item", out.GPU.Item.String(), "--max", fmt.Sprint(out.GPU.Max)}
	return with(ctx, p, func(s *system.System) (err error) {
		out.Goodput, err = Goodput{
			System: s.Producers[0].URL, GPU: out.GPU, Share: 0.8, Limit: out.Limit, Length: 4 * a.Turn, Seed: 1,
		}.Run(ctx)
		return err
	})
}

func (a All) rates(ctx context.Context, out *AllReport) error {
	fmt.Fprintln(a.Notes, "end to end: 64 clients, 16 tasks each, a backend that costs nothing …")
	p := a.Params
	p.Simulate = []string{"--base", "0s", "--item", "0s", "--token", "0s"}
	return with(ctx, p, func(s *system.System) error {
		if err := a.endToEnd(ctx, s, out); err != nil {
			return err
		}
		fmt.Fprintln(a.Notes, "accept: in turns with the bare handler, workers stopped …")
		for _, w := range s.Workers {
			if err := w.Term(); err != nil {
				return err
			}
		}
		return a.accept(ctx, s, out)
	})
}

func (a All) endToEnd(ctx context.Context, s *system.System, out *AllReport) error {
	parts, err := parseParts(nil)
	if err != nil {
		return err
	}
	for _, p := range []*system.Process{s.Producers[0], s.Workers[0], s.Results[0], s.Simulators[0]} {
		name, _, _ := strings.Cut(p.Name, "-")
		parts = append(parts, Part{name, p.PID()})
	}
	out.Parts = append(parts, a.Parts...)
	out.EndToEnd, err = EndToEnd{
		Client: s.Client(), Load: Load{Clients: 64, Length: 3 * a.Turn}, Tasks: 16, Parts: out.Parts,
	}.Run(ctx)
	return err
}

func (a All) accept(ctx context.Context, s *system.System, out *AllReport) error {
	child, err := startBare(ctx, a.Params.Kafka)
	if err != nil {
		return err
	}
	defer child.stop()
	out.AcceptParts = append(append(out.AcceptParts, out.Parts[0], Part{"producer", s.Producers[0].PID()}, Part{"bare handler", child.cmd.Process.Pid},
		Part{"resultsvc", s.Results[0].PID()}), a.Parts...)
	out.Accept, err = Accept{
		System: s.Producers[0].URL, Bare: child.url, Load: Load{Clients: 64, Length: a.Turn / 2}, Rounds: 8, Parts: out.AcceptParts,
	}.Run(ctx)
	return err
}

// with runs do on a system started for it.
func with(ctx context.Context, p system.Params, do func(*system.System) error) error {
	s, err := system.Start(ctx, p)
	if err != nil {
		return err
	}
	doErr := do(s)
	if err := s.Stop(); doErr == nil {
		return err
	}
	return doErr
}

// table prints the ratios and, below, where the processor time went.
func (r AllReport) table(w io.Writer, versions string) error {
	t := newTable(w)
	row(t, "MEASURE", "PENSTOCK", "YARDSTICK", "RATIO", "TARGET", "")
	line := func(name, ours, theirs string, ratio, target float64) {
		row(t, name, ours, theirs, fmt.Sprintf("%.2f", ratio), fmt.Sprintf("%.2f", target), verdict(ratio >= target))
	}
	bareRate := r.Accept.Bare.PerSecond()
	line("accepted tasks/s", fmt.Sprintf("%.0f", r.Accept.System.PerSecond()), fmt.Sprintf("%.0f (bare handler)", bareRate), r.Accept.Ratio(), targetAccept)
	line("delivered tasks/s", fmt.Sprintf("%.0f", r.EndToEnd.PerSecond()), fmt.Sprintf("%.0f (bare handler)", bareRate), r.EndToEnd.PerSecond()/bareRate, targetEndToEnd)
	line(fmt.Sprintf("goodput within %s at %.0f/s", r.Limit, r.Goodput.Rate),
		fmt.Sprintf("%d of %d", r.Goodput.Good, r.Goodput.Arrivals), fmt.Sprintf("%d (oracle)", r.Goodput.Oracle), r.Goodput.Ratio(), targetGoodput)
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w, "\naccept, in turns:")
	if err := r.Accept.table(w, r.AcceptParts); err != nil {
		return err
	}
	fmt.Fprintln(w, "\nend to end:")
	if err := r.EndToEnd.table(w, r.Parts); err != nil {
		return err
	}
	fmt.Fprintln(w, "\ngoodput:")
	if err := r.Goodput.table(w, r.Limit); err != nil {
		return err
	}
	fmt.Fprintln(w, "\nstreams:")
	if err := r.Streams.table(w); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n", versions)
	return err
}

// versions names what was measured, and on what.
func versions(ctx context.Context, kafka []string, redisURL string) (string, error) {
	b := telemetry.ReadBuild()
	k, err := kafkaVersion(ctx, kafka)
	if err != nil {
		return "", err
	}
	r, err := redisVersion(ctx, redisURL)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("penstock %s %s, %s, %d CPUs, Kafka %s, %s", b.Version, b.Commit, b.Go, runtime.NumCPU(), k, r), nil
}

func kafkaVersion(ctx context.Context, brokers []string) (string, error) {
	cl, err := kafkaclient.New(kafkaclient.Config{Brokers: brokers, ClientID: "penstock-bench"}, slog.New(slog.DiscardHandler))
	if err != nil {
		return "", err
	}
	defer cl.Close()
	v, err := kadm.NewClient(cl).ApiVersions(ctx)
	if err != nil {
		return "", fmt.Errorf("ask Kafka's version: %w", err)
	}
	for _, broker := range v.Sorted() {
		return broker.VersionGuess(), nil
	}
	return "unknown", nil
}

func redisVersion(ctx context.Context, url string) (string, error) {
	opts, err := redis.ParseURL(url)
	if err != nil {
		return "", fmt.Errorf("redis URL: %w", err)
	}
	cl := redis.NewClient(opts)
	defer cl.Close()
	info, err := cl.Info(ctx, "server").Result()
	if err != nil {
		return "", fmt.Errorf("ask Redis's version: %w", err)
	}
	name, version := "Redis", "unknown"
	for line := range strings.Lines(info) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch key {
		case "valkey_version":
			return "Valkey " + value, nil
		case "redis_version":
			version = value
		}
	}
	return name + " " + version, nil
}

func allCommand(workplace func(verb string) (bin, dir string, err error)) *cobra.Command {
	var a All
	var pids []string
	c := &cobra.Command{
		Use: "all", Short: "Start the services and run all measurements; `make bench` does", Args: cobra.NoArgs,
		Long: `Starts the three services as processes of their own, against a Kafka and a Redis that
nobody else uses: the measurement of accepting leaves a backlog that nobody works off.`,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if a.Parts, err = parseParts(pids); err != nil {
				return &lifecycle.UsageError{Err: err}
			}
			a.Parts = a.Parts[1:] // the client is counted by EndToEnd
			if a.Params.Bin, a.Params.Dir, err = workplace("bench"); err != nil {
				return err
			}
			a.Out, a.Notes = c.OutOrStdout(), c.ErrOrStderr()
			v, err := versions(c.Context(), a.Params.Kafka, a.Params.Redis)
			if err != nil {
				return err
			}
			report, err := a.Run(c.Context())
			if err != nil {
				return fmt.Errorf("%w; logs of the services: %s", err, a.Params.Dir)
			}
			return report.table(a.Out, v)
		},
	}
	f := c.Flags()
	f.StringSliceVar(&a.Params.Kafka, "kafka", []string{"127.0.0.1:9092"}, "bootstrap addresses, host:port")
	f.StringVar(&a.Params.Redis, "redis", "redis://127.0.0.1:6379/0", "URL of Redis")
	f.DurationVar(&a.Turn, "turn", 5*time.Second, "unit of length: one makes a round of accepting (of eight), three the end-to-end run, four the goodput run, 100 the streams")
	f.StringSliceVar(&pids, "pid", nil, "name=pid of a server whose processor time is told apart; may be repeated")
	return c
}
