package batch

import (
	"math"
	"time"
)

// window is how far back arrivals count: long enough to smooth, short enough
// that a burst's end is noticed before much has been waited for.
const window = 500 * time.Millisecond

// rate is how fast items arrive: a count that decays over window.
type rate struct {
	perSecond float64
	at        time.Time
}

func (r *rate) arrive(now time.Time) {
	r.perSecond = r.now(now) + 1/window.Seconds()
	r.at = now
}

func (r *rate) now(now time.Time) float64 {
	if r.at.IsZero() {
		return 0
	}
	return r.perSecond * math.Exp(-max(0, now.Sub(r.at).Seconds())/window.Seconds())
}
