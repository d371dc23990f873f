package bench

import (
	"math/rand/v2"
	"time"
)

// GPU is the cost model of the simulated backend: a call with n items takes
// Base + n × Item, and carries at most Max of them.
type GPU struct {
	Base, Item time.Duration
	Max        int
}

// Capacity is the most items per second it can serve: full batches, always.
func (g GPU) Capacity() float64 {
	return float64(g.Max) / g.cost(g.Max).Seconds()
}

func (g GPU) cost(n int) time.Duration { return g.Base + time.Duration(n)*g.Item }

// Oracle returns the latency of each arrival under the best server of its
// kind: no overhead at all, and whenever the GPU is free it takes all that
// wait, oldest first, up to Max. Arrivals must be in order.
func (g GPU) Oracle(arrivals []time.Duration) []time.Duration {
	out := make([]time.Duration, len(arrivals))
	var free time.Duration
	for next := 0; next < len(arrivals); {
		start := max(free, arrivals[next])
		n := 0
		for next+n < len(arrivals) && n < g.Max && arrivals[next+n] <= start {
			n++
		}
		free = start + g.cost(n)
		for i := next; i < next+n; i++ {
			out[i] = free - arrivals[i]
		}
		next += n
	}
	return out
}

// Poisson returns the arrivals of a Poisson process of a rate per second, up
// to a length. The same seed gives the same arrivals.
func Poisson(rate float64, length time.Duration, seed uint64) []time.Duration {
	rng := rand.New(rand.NewPCG(seed, 0))
	var out []time.Duration
	for at := 0.0; ; {
		at += rng.ExpFloat64() / rate
		d := time.Duration(at * float64(time.Second))
		if d >= length {
			return out
		}
		out = append(out, d)
	}
}

// within counts the latencies at or below a limit.
func within(latencies []time.Duration, limit time.Duration) int {
	n := 0
	for _, l := range latencies {
		if l <= limit {
			n++
		}
	}
	return n
}
