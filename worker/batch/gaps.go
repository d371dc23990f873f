package batch

import (
	"slices"
	"time"
)

// gaps remembers the newest times between arrivals of a key. They are kept as
// they were, not as a mean: tasks that come in clumps (callers who all waited
// for one batch) have a long mean gap, and yet the next one is about to come.
type gaps struct {
	ring [64]time.Duration
	n    int // seen
	last time.Time
}

// enough gaps to say anything.
const enoughGaps = 8

func (g *gaps) arrive(now time.Time) {
	if !g.last.IsZero() {
		g.ring[g.n%len(g.ring)] = max(0, now.Sub(g.last))
		g.n++
	}
	g.last = now
}

// left returns, in order, how much longer the next arrival may take when the
// last was elapsed ago: what remains of those gaps that were longer.
func (g *gaps) left(elapsed time.Duration) []time.Duration {
	known := g.ring[:min(g.n, len(g.ring))]
	out := make([]time.Duration, 0, len(known))
	for _, gap := range known {
		if gap > elapsed || gap == 0 && elapsed == 0 {
			out = append(out, gap-elapsed)
		}
	}
	slices.Sort(out)
	return out
}

// patience returns how long n items should wait for one more, by what it is
// worth on average: 0 if it is not.
//
// The next item, if it comes after g, saves base − g by sharing this call
// instead of waiting for its end and paying for its own. Each of the n loses g
// and the item's own cost then; if it does not come they lose the patience.
func patience(left []time.Duration, n int, base, item float64) time.Duration {
	best, longest := 0.0, time.Duration(0)
	gain, m, waiting := 0.0, float64(len(left)), float64(n)
	for k, gap := range left {
		g := gap.Seconds()
		gain += base - g - waiting*(g+item)
		value := (gain - (m-float64(k+1))*waiting*g) / m
		if value > best {
			best, longest = value, gap
		}
	}
	if best < base/100 {
		return 0
	}
	return longest
}
