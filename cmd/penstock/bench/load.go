package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	// slowest and digits bound what a histogram can tell: latencies from 1 µs
	// to two minutes with three digits.
	slowest = 2 * time.Minute
	digits  = 3
	// openInFlight bounds the calls of an open loop that wait at once. A call
	// beyond it fails, and is counted: the system is far behind by then.
	openInFlight = 4096
)

// Load is one run of calls.
type Load struct {
	Clients int           // of a closed loop: each calls again as soon as it is answered
	Rate    float64       // of an open loop: calls per second, whatever the answers do; 0: closed
	Length  time.Duration // how long calls are begun; each client of a closed loop makes at least one
	Seed    uint64        // of the open loop's arrivals
}

// Result is what a run of calls came to.
type Result struct {
	Calls   int64 // answered well
	Failed  int64
	Elapsed time.Duration
	Latency *hdrhistogram.Histogram // of the good ones, in µs; in an open loop from the due time on
	Err     error                   // the first failure
}

// PerSecond is the rate of good answers.
func (r Result) PerSecond() float64 { return float64(r.Calls) / r.Elapsed.Seconds() }

// Quantile returns a latency, q from 0 to 100.
func (r Result) Quantile(q float64) time.Duration {
	return time.Duration(r.Latency.ValueAtQuantile(q)) * time.Microsecond
}

// Run calls do until the load's time is over and every call is answered. Do
// gets the number of its client, or of its call in an open loop.
func (l Load) Run(ctx context.Context, do func(ctx context.Context, n int) error) Result {
	if l.Rate > 0 {
		return l.open(ctx, do)
	}
	return l.closed(ctx, do)
}

func (l Load) closed(ctx context.Context, do func(context.Context, int) error) Result {
	began := time.Now()
	parts := make([]*tally, l.Clients)
	var wg sync.WaitGroup
	for i := range parts {
		parts[i] = newTally()
		wg.Go(func() {
			for first := true; first || time.Since(began) < l.Length && ctx.Err() == nil; first = false {
				start := time.Now()
				err := do(ctx, i)
				parts[i].add(time.Since(start), err)
			}
		})
	}
	wg.Wait()
	return merge(parts, time.Since(began))
}

// open begins each call when it is due, even if earlier ones still wait, and
// counts the wait from then on: a stalled system cannot hide behind a client
// that politely stopped asking (coordinated omission).
func (l Load) open(ctx context.Context, do func(context.Context, int) error) Result {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex // guards total
		total = newTally()
		slots = make(chan struct{}, openInFlight)
		began = time.Now()
	)
	for n, due := range Poisson(l.Rate, l.Length, l.Seed) {
		at := began.Add(due)
		if waitUntil(ctx, at) != nil {
			break
		}
		select {
		case slots <- struct{}{}:
		default:
			mu.Lock()
			total.add(0, errOverrun)
			mu.Unlock()
			continue
		}
		wg.Go(func() {
			err := do(ctx, n)
			took := time.Since(at)
			mu.Lock()
			total.add(took, err)
			mu.Unlock()
			<-slots
		})
	}
	wg.Wait()
	return merge([]*tally{total}, time.Since(began))
}

var errOverrun = errors.New("too many calls wait at once: the system is far slower than the rate asked for")

func waitUntil(ctx context.Context, at time.Time) error {
	d := time.Until(at)
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// tally counts the calls of one client.
type tally struct {
	calls, failed int64
	latency       *hdrhistogram.Histogram
	err           error
}

func newTally() *tally {
	return &tally{latency: hdrhistogram.New(1, slowest.Microseconds(), digits)}
}

// add counts a call.
func (t *tally) add(took time.Duration, err error) {
	if err != nil {
		t.failed++
		if t.err == nil {
			t.err = err
		}
		return
	}
	t.calls++
	_ = t.latency.RecordValue(min(took, slowest).Microseconds()) // in range by construction
}

func merge(parts []*tally, elapsed time.Duration) Result {
	out := Result{Elapsed: elapsed, Latency: hdrhistogram.New(1, slowest.Microseconds(), digits)}
	for _, p := range parts {
		out.Calls += p.calls
		out.Failed += p.failed
		out.Latency.Merge(p.latency)
		if out.Err == nil {
			out.Err = p.err
		}
	}
	return out
}

// check turns a run with failures into an error: a rate of error answers is
// not a rate.
func (r Result) check(what string) error {
	if r.Failed > 0 {
		return fmt.Errorf("%s: %d of %d calls failed, the first with: %w", what, r.Failed, r.Failed+r.Calls, r.Err)
	}
	if r.Calls == 0 {
		return fmt.Errorf("%s: no call was answered", what)
	}
	return nil
}
