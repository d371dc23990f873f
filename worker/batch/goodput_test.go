package batch_test

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/penstock/penstock/worker/batch"
)

// The simulation is of a pool in virtual time: tasks arrive, the batcher cuts,
// and engines run the calls they are given, each engine one at a time in the
// order they came. What is measured is goodput: tasks that ended within slo of
// their arrival.
const (
	slo      = 500 * time.Millisecond
	base     = 20 * time.Millisecond
	perItem  = time.Millisecond
	mostOne  = 32
	horizon  = 30 * time.Second
	capacity = mostOne / 0.052 // tasks per second in full batches
)

func cost(n int) time.Duration { return base + time.Duration(n)*perItem }

type result struct {
	good, all  int
	mean, p99  time.Duration
	reasons    map[batch.Reason]int
	batches    int
	maxLimit   int
	unfinished int
}

func (r result) String() string {
	return fmt.Sprintf("good %d of %d, mean %s, p99 %s, %d batches %v, at most %d calls at once",
		r.good, r.all, r.mean.Round(time.Millisecond), r.p99.Round(time.Millisecond), r.batches, r.reasons, r.maxLimit)
}

func summarise(latencies []time.Duration, all int) result {
	r := result{all: all, unfinished: all - len(latencies)}
	slices.Sort(latencies)
	var sum time.Duration
	for _, l := range latencies {
		sum += l
		if l <= slo {
			r.good++
		}
	}
	if len(latencies) > 0 {
		r.mean, r.p99 = sum/time.Duration(len(latencies)), latencies[len(latencies)*99/100]
	}
	return r
}

// poisson returns arrivals at a rate until the horizon.
func poisson(seed uint64, perSecond float64) []time.Duration {
	rnd := rand.New(rand.NewPCG(seed, 7))
	var out []time.Duration
	for at := 0.0; ; {
		at += rnd.ExpFloat64() / perSecond
		if at > horizon.Seconds() {
			return out
		}
		out = append(out, time.Duration(at*float64(time.Second)))
	}
}

// bursts returns the same rate on average, in groups of tasks at one instant.
func bursts(seed uint64, perSecond float64, size int) []time.Duration {
	var out []time.Duration
	for _, at := range poisson(seed, perSecond/float64(size)) {
		for range size {
			out = append(out, at)
		}
	}
	return out
}

// oracle serves all that wait, at most mostOne, whenever the engine is free.
func oracle(arrivals []time.Duration) result {
	var latencies []time.Duration
	for i, free := 0, time.Duration(0); i < len(arrivals); {
		begin := max(free, arrivals[i])
		n := 0
		for i+n < len(arrivals) && n < mostOne && arrivals[i+n] <= begin {
			n++
		}
		free = begin + cost(n)
		for range n {
			latencies = append(latencies, free-arrivals[i])
			i++
		}
	}
	return summarise(latencies, len(arrivals))
}

type event struct {
	at  time.Duration
	seq int
	run func()
}

type agenda []event

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].seq < a[j].seq
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(event)) }
func (a *agenda) Pop() any {
	old := *a
	x := old[len(old)-1]
	*a = old[:len(old)-1]
	return x
}

// pool is the simulated pool: engines that are each serial, slots that the
// router would give out, and the jitter of a call's time.
type pool struct {
	b       *batch.Batcher[int]
	engines []time.Duration // when each is free
	slots   int
	jitter  float64
	rnd     *rand.Rand

	now     time.Duration
	agenda  agenda
	seq     int
	running int
	dueAt   time.Duration
	done    func(i int)
	result  result
}

func (p *pool) at(t time.Duration, run func()) {
	p.seq++
	heap.Push(&p.agenda, event{t, p.seq, run})
}

func (p *pool) clock() time.Time { return start.Add(p.now) }

func simulate(arrivals []time.Duration, engines, slots int, jitter float64) result {
	p := &pool{
		b: batch.New[int](batch.Policy{}), engines: make([]time.Duration, engines), slots: slots,
		jitter: jitter, rnd: rand.New(rand.NewPCG(3, 5)), dueAt: -1,
	}
	var latencies []time.Duration
	p.done = func(i int) { latencies = append(latencies, p.now-arrivals[i]) }
	reasons := map[batch.Reason]int{}
	p.result.reasons = reasons
	for i, at := range arrivals {
		p.at(at, func() { p.b.Add(batch.Item[int]{Value: i, Group: "m", Key: "k", Max: mostOne}, p.clock()) })
	}
	for len(p.agenda) > 0 {
		e := heap.Pop(&p.agenda).(event)
		p.now = e.at
		e.run()
		p.cut()
	}
	r := summarise(latencies, len(arrivals))
	r.reasons, r.batches, r.maxLimit = reasons, p.result.batches, p.result.maxLimit
	return r
}

func (p *pool) cut() {
	for {
		b, ok := p.b.Next(p.clock(), func(string) int { return p.slots - p.running })
		if !ok {
			break
		}
		p.start(b)
	}
	if due, ok := p.b.Due(); ok {
		if at := due.Sub(start); at != p.dueAt {
			p.dueAt = at
			p.at(at, func() {})
		}
	}
}

func (p *pool) start(b batch.Batch[int]) {
	p.running++
	p.result.batches++
	p.result.reasons[b.Reason]++
	p.result.maxLimit = max(p.result.maxLimit, p.running)
	first := 0
	for i := range p.engines {
		if p.engines[i] < p.engines[first] {
			first = i
		}
	}
	takes := time.Duration(float64(cost(len(b.Items))) * math.Exp(p.jitter*p.rnd.NormFloat64()))
	end := max(p.now, p.engines[first]) + takes
	p.engines[first] = end
	p.at(end, func() {
		p.running--
		p.b.Done(b, p.clock(), true)
		for _, i := range b.Items {
			p.done(i)
		}
	})
}

func TestGoodputAgainstTheOracle(t *testing.T) {
	for _, tc := range []struct {
		name     string
		arrivals []time.Duration
		slots    int
	}{
		{"80 % of capacity", poisson(1, 0.8*capacity), 1},
		{"80 % of capacity, a router that offers eight calls to a serial engine", poisson(1, 0.8*capacity), 8},
		{"95 % of capacity", poisson(2, 0.95*capacity), 8},
		{"20 % of capacity", poisson(3, 0.2*capacity), 8},
		{"bursts of 50 at 80 % of capacity", bursts(4, 0.8*capacity, 50), 8},
		{"a trickle", poisson(5, 3), 8},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want, got := oracle(tc.arrivals), simulate(tc.arrivals, 1, tc.slots, 0)
			t.Logf("oracle:  %s", want)
			t.Logf("batcher: %s", got)
			if got.unfinished > 0 {
				t.Errorf("%d tasks never ended", got.unfinished)
			}
			if float64(got.good) < 0.95*float64(want.good) {
				t.Errorf("goodput %.3f of the oracle's", float64(got.good)/float64(want.good))
			}
			if got.mean > want.mean*5/4 {
				t.Errorf("mean latency %s, the oracle's %s", got.mean, want.mean)
			}
		})
	}
}

// clumps returns groups of tasks spread over a while, as they come from callers
// who all waited for the same batch.
func clumps(seed uint64, size int, within, every time.Duration) []time.Duration {
	rnd := rand.New(rand.NewPCG(seed, 9))
	var out []time.Duration
	for at := time.Duration(0); at < horizon; at += every {
		for range size {
			out = append(out, at+time.Duration(rnd.Int64N(int64(within))))
		}
	}
	slices.Sort(out)
	return out
}

// With arrivals in clumps the next is about to come though the mean gap is
// long: a little patience must beat going at once, which is all the oracle
// does. Where arrivals tell nothing of the next, patience must cost nothing.
func TestWaitingForCompanyPays(t *testing.T) {
	for _, tc := range []struct {
		name     string
		arrivals []time.Duration
		most     float64 // of the oracle's mean latency
	}{
		{"eight callers in step", clumps(6, 8, 5*time.Millisecond, 200*time.Millisecond), 0.8},
		{"two callers in step", clumps(6, 2, 5*time.Millisecond, 200*time.Millisecond), 0.95},
		{"no pattern, hardly any load", poisson(6, 0.05*capacity), 1.05},
		{"no pattern, half of capacity", poisson(6, 0.5*capacity), 1.02},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want, got := oracle(tc.arrivals), simulate(tc.arrivals, 1, 1, 0)
			t.Logf("oracle:  %s", want)
			t.Logf("batcher: %s", got)
			if float64(got.mean) > tc.most*float64(want.mean) {
				t.Errorf("mean latency %s, going at once %s: want at most %.2f of it", got.mean, want.mean, tc.most)
			}
		})
	}
}

func TestEnginesThatRunSideBySideAreAllUsed(t *testing.T) {
	for _, tc := range []struct {
		name    string
		engines int
		jitter  float64
	}{
		{"two engines", 2, 0},
		{"four engines whose calls vary", 4, 0.3},
		{"eight engines whose calls vary much", 8, 0.6},
	} {
		t.Run(tc.name, func(t *testing.T) {
			arrivals := poisson(8, 0.7*capacity*float64(tc.engines)*math.Exp(-tc.jitter*tc.jitter/2))
			got := simulate(arrivals, tc.engines, 8, tc.jitter)
			t.Logf("batcher: %s", got)
			if float64(got.good) < 0.95*float64(got.all) {
				t.Errorf("goodput %d of %d", got.good, got.all)
			}
		})
	}
}
