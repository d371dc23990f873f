package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/redisclient"
)

// Streams measures what callers see of streams, and what it costs to hold them,
// each part on services started for it.
type Streams struct {
	Params system.Params
	Turn   time.Duration // unit of length
	Crowd  int           // streams that are held at once
	Only   string        // partAnswers or partCrowd; empty: both
	Notes  io.Writer
}

// Parts of Streams.
const (
	partAnswers = "answers"
	partCrowd   = "crowd"
)

// StreamsReport is what came out.
type StreamsReport struct {
	Answers AnswersReport
	Crowds  []CrowdSides // by protocol
	Crowd   Crowd
}

// Run measures.
func (s Streams) Run(ctx context.Context) (out StreamsReport, err error) {
	if err := enoughFiles(s.Crowd); err != nil {
		return out, err
	}
	if s.Only != partCrowd {
		if out.Answers, err = s.answers(ctx); err != nil {
			return out, err
		}
	}
	if s.Only != partAnswers {
		err = s.crowds(ctx, &out)
	}
	return out, err
}

// seldom lets the heap of this process grow to so much more, in percent, that it
// is collected between measurements and not within.
const seldom = 400

// crowds measures over both protocols. What the streams wait for stays in the
// backlog.
func (s Streams) crowds(ctx context.Context, out *StreamsReport) error {
	defer debug.SetGCPercent(debug.SetGCPercent(seldom))
	out.Crowd = Crowd{Streams: s.Crowd, Rate: crowdRate, Settle: s.Turn, Length: rounds * 3 * s.Turn}
	for _, protocol := range []string{overHTTP1, overH2C} {
		fmt.Fprintf(s.Notes, "streams: %d over %s, in turns of a bare server and of the results service …\n", s.Crowd, protocol)
		sides, err := s.crowd(ctx, out.Crowd, protocol)
		if err != nil {
			return fmt.Errorf("%d streams over %s: %w", s.Crowd, protocol, err)
		}
		out.Crowds = append(out.Crowds, sides)
	}
	return nil
}

// crowdStreams is how many streams are held unless it is said otherwise.
const crowdStreams = 10_000

// crowdRate is how many events a second reach a crowd.
const crowdRate = 500

// crowd takes both rounds. One crowd is open at a time: two would be more files
// than a process may have.
func (s Streams) crowd(ctx context.Context, c Crowd, protocol string) (CrowdSides, error) {
	there := round{params: s.Params, crowd: c, protocol: protocol}
	back := there
	back.backwards = true
	for _, measure := range []func(context.Context) error{there.bare, there.ours, back.ours, back.bare} {
		if err := measure(ctx); err != nil {
			return CrowdSides{}, err
		}
	}
	there.sides.join(back.sides)
	return there.sides, nil
}

// round is each side once, over one protocol.
type round struct {
	params    system.Params
	crowd     Crowd
	protocol  string
	backwards bool       // the acts come from the last to the first
	sides     CrowdSides // filled by bare and ours
}

// bare measures a bare server that is started for it.
func (r *round) bare(ctx context.Context) error {
	rdb, err := redisclient.New(redisclient.Config{URL: config.Secret(r.params.Redis), PoolSize: 2})
	if err != nil {
		return err
	}
	defer rdb.Close()
	child, err := startSelf(ctx, "bench", "bare-sse", "--feed", r.params.Redis)
	if err != nil {
		return err
	}
	defer child.stop()
	v := bareVenue{child, rdb}
	if err := r.crowd.hold(ctx, v, r.protocol, r.acts(v)...); err != nil {
		return fmt.Errorf("bare server: %w", err)
	}
	return nil
}

// acts are those of the bare server.
func (r *round) acts(v bareVenue) []act {
	acts := []act{{&r.sides.Bare, v.own}, {&r.sides.Told, v.told}, {&r.sides.Fed, v.fed}}
	if r.backwards {
		slices.Reverse(acts)
	}
	return acts
}

// ours measures the results service of a system that is started for it.
func (r *round) ours(ctx context.Context) error {
	p := r.params
	p.Workers = -1
	return with(ctx, p, func(sys *system.System) error {
		v, err := newVenue(ctx, sys, p.Redis, r.crowd.Streams)
		if err != nil {
			return err
		}
		err = r.crowd.hold(ctx, v, r.protocol, act{&r.sides.Ours, v.emit})
		return errors.Join(err, v.close())
	})
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
	row(t, "MEASURE", "PENSTOCK", "BARE SERVER", "RATIO", "TARGET", "")
	if age := r.Answers.Age(); age > 0 {
		row(t, "age of a token when it is delivered, p99", short(age), "-", "-", short(ageTarget), verdict(age <= ageTarget))
	}
	line := func(name, protocol, ours, theirs string, ratio, target float64) {
		row(t, name+", "+protocol, ours, theirs, fmt.Sprintf("%.2f", ratio), fmt.Sprintf("%.2f", target), verdict(ratio <= target))
	}
	for _, p := range r.Crowds {
		line("memory of an idle stream", p.Ours.Protocol, p.Ours.kib(), p.Bare.kib(), p.Memory(), memoryTarget)
		delivery := func(name string, than CrowdSide) {
			line(name, p.Ours.Protocol, short(p.Ours.Delivery.Quantile(99)), short(than.Delivery.Quantile(99)), p.Delay(than), delayTarget)
		}
		delivery("delivery of an event, p99", p.Bare)
		delivery("and beside one to which it is published", p.Told)
		delivery("and beside one that has it from Redis", p.Fed)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(r.Answers.Streamed) > 0 {
		fmt.Fprintf(w, "\nanswers, in turns; a token every %s:\n", tokenTime)
		if err := r.Answers.table(w); err != nil {
			return err
		}
	}
	if len(r.Crowds) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\n%d streams of which nothing comes, then %.0f events a second:\n", r.Crowd.Streams, r.Crowd.Rate)
	return r.crowdTable(w)
}

// Targets of what it costs to hold streams, as ratios to the bare server.
const (
	memoryTarget = 1.3
	delayTarget  = 1.5
)

func (s CrowdSide) kib() string { return fmt.Sprintf("%.1f KiB", s.PerHead/1024) }

func (r StreamsReport) crowdTable(w io.Writer) error {
	t := newTable(w)
	row(t, "PROTOCOL", "SERVER", "MEMORY/STREAM", "EVENTS", "WRITE P50", "P99", "DELIVERY P50", "P90", "P99", "P99.9", "CPU µs/EVENT")
	for _, p := range r.Crowds {
		p.Bare.row(t, "bare, of its own events")
		p.Told.row(t, "bare, published to over HTTP")
		p.Fed.row(t, "bare, fed by Redis")
		p.Ours.row(t, "results service")
	}
	return t.Flush()
}

func (s CrowdSide) row(w io.Writer, name string) {
	d := s.Delivery
	row(w, s.Protocol, name, s.kib(), d.Calls, s.write(50), s.write(99), short(d.Quantile(50)), short(d.Quantile(90)), short(d.Quantile(99)), short(d.Quantile(99.9)),
		(s.CPU / time.Duration(max(1, d.Calls))).Microseconds())
}

// write is a quantile of the writes, if there were any.
func (s CrowdSide) write(q float64) string {
	if s.Write.Calls == 0 {
		return "-"
	}
	return short(s.Write.Quantile(q))
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
		Use: "streams", Short: "First token and age of tokens beside the engine itself, and thousands of streams beside a bare server", Args: cobra.NoArgs,
		Long: `Starts the services as processes of their own, against a Kafka and a Redis that nobody
else uses. All that is compared is measured in turns.`,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if s.Only != "" && s.Only != partAnswers && s.Only != partCrowd {
				return &lifecycle.UsageError{Err: fmt.Errorf("--only %q: want %s or %s", s.Only, partAnswers, partCrowd)}
			}
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
	f.DurationVar(&s.Turn, "turn", 5*time.Second, "unit of length: one makes a turn of streams, half of one a turn of plain calls, six the events of each side to a crowd: a round is then as long as a heartbeat, and no side has more of them")
	f.StringVar(&s.Only, "only", "", partAnswers+" or "+partCrowd+"; empty: both")
	f.IntVar(&s.Crowd, "streams", crowdStreams, "streams that are held at once; ulimit -n must be some more")
	return c
}
