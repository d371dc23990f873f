package bench

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/penstock/penstock/cmd/system"
)

// Streams measures what callers see of streams, each part on services started
// for it.
type Streams struct {
	Params system.Params
	Turn   time.Duration // unit of length
	Notes  io.Writer
}

// StreamsReport is what came out.
type StreamsReport struct {
	Answers AnswersReport
}

// Run measures.
func (s Streams) Run(ctx context.Context) (out StreamsReport, err error) {
	out.Answers, err = s.answers(ctx)
	return out, err
}

func (s Streams) answers(ctx context.Context) (out AnswersReport, err error) {
	fmt.Fprintln(s.Notes, "answers: in turns with the engine itself, 20 ms a token …")
	p := s.Params
	p.Simulate = []string{"--base", "0s", "--item", "0s", "--token", tokenTime.String(), "--stamp"}
	p.SimulatorSlots = 2 * manyAtOnce
	err = with(ctx, p, func(sys *system.System) (err error) {
		out, err = Answers{Engine: sys.Simulators[0].URL, Client: sys.Client(), Turn: s.Turn, Rounds: 4}.Run(ctx)
		return err
	})
	return out, err
}

// Age is the worst 99th percentile of the tokens' age on any way through the
// queue.
func (r AnswersReport) Age() time.Duration {
	var worst time.Duration
	for _, s := range r.Streamed {
		if s.Name != sideEngine {
			worst = max(worst, s.Age.Quantile(99))
		}
	}
	return worst
}

// table prints each load's sides, and what the queue adds to the engine's own.
func (r AnswersReport) table(w io.Writer) error {
	t := newTable(w)
	row(t, "STREAMS", "SIDE", "ANSWERS", "FIRST TOKEN P50", "P99", "ADDED P50", "P99", "AGE OF TOKENS P50", "P99", "MAX")
	for _, s := range r.Streamed {
		engine := r.engineAt(s.Streams)
		row(t, s.Streams, s.Name, s.First.Calls, short(s.First.Quantile(50)), short(s.First.Quantile(99)),
			added(s.First, engine.First, 50), added(s.First, engine.First, 99),
			short(s.Age.Quantile(50)), short(s.Age.Quantile(99)), short(s.Age.Quantile(100)))
	}
	row(t)
	row(t, "PLAIN CALLS", "SIDE", "ANSWERS", "P50", "P99", "ADDED P50", "P99")
	for i, s := range r.Plain {
		engine := r.Plain[i-i%2].Result // it is the first of two
		row(t, s.Load, s.Name, s.Result.Calls, short(s.Result.Quantile(50)), short(s.Result.Quantile(99)),
			added(s.Result, engine, 50), added(s.Result, engine, 99))
	}
	return t.Flush()
}

func (r AnswersReport) engineAt(streams int) StreamedSide {
	i := slices.IndexFunc(r.Streamed, func(s StreamedSide) bool { return s.Streams == streams && s.Name == sideEngine })
	return r.Streamed[i]
}

// added is what one side's quantile is above the other's.
func added(r, than Result, q float64) string {
	if r.Latency == than.Latency {
		return "-"
	}
	return short(r.Quantile(q) - than.Quantile(q))
}

// ageTarget is what a token may be old: it waits for company, and then 5 ms on
// the way.
const ageTarget = 40*time.Millisecond + 5*time.Millisecond

// table prints what was measured, first what has a target.
func (r StreamsReport) table(w io.Writer) error {
	t := newTable(w)
	row(t, "MEASURE", "PENSTOCK", "TARGET", "")
	row(t, "age of a token when it is delivered, p99", short(r.Answers.Age()), short(ageTarget), verdict(r.Answers.Age() <= ageTarget))
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nanswers, in turns; a token every %s:\n", tokenTime)
	return r.Answers.table(w)
}

func verdict(reached bool) string {
	if reached {
		return "reached"
	}
	return "missed"
}

func streamsCommand(workplace func(verb string) (bin, dir string, err error)) *cobra.Command {
	var s Streams
	c := &cobra.Command{
		Use: "streams", Short: "What callers see of streams: first token and age of tokens, beside the engine itself", Args: cobra.NoArgs,
		Long: "Starts the services as processes of their own, against a Kafka and a Redis that nobody else uses.",
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if s.Params.Bin, s.Params.Dir, err = workplace("bench"); err != nil {
				return err
			}
			s.Notes = c.ErrOrStderr()
			report, err := s.Run(c.Context())
			if err != nil {
				return fmt.Errorf("%w; logs of the services: %s", err, s.Params.Dir)
			}
			return report.table(c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.StringSliceVar(&s.Params.Kafka, "kafka", []string{"127.0.0.1:9092"}, "bootstrap addresses, host:port")
	f.StringVar(&s.Params.Redis, "redis", "redis://127.0.0.1:6379/0", "URL of Redis")
	f.DurationVar(&s.Turn, "turn", 5*time.Second, "unit of length: one makes a turn of streams, half of one a turn of plain calls")
	return c
}
