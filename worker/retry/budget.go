package retry

import "time"

// Budget keeps retries a small part of a backend's traffic, so that a backend
// in trouble is not buried under its own failures: at most Ratio of the calls
// of the last ten seconds, and never fewer than Floor. It belongs to one loop.
type Budget struct {
	Ratio float64 // default 0.1
	Floor int     // default 10

	slots [10]struct {
		second         int64
		calls, retries int
	}
}

// Call notes a first try at a time.
func (b *Budget) Call(now time.Time) { b.slot(now).calls++ }

// Retry reports whether a retry may go out now, and if so notes it.
func (b *Budget) Retry(now time.Time) bool {
	ratio, floor := b.Ratio, b.Floor
	if ratio == 0 {
		ratio = 0.1
	}
	if floor == 0 {
		floor = 10
	}
	calls, retries := b.sums(now)
	if retries >= max(floor, int(ratio*float64(calls+retries))) {
		return false
	}
	b.slot(now).retries++
	return true
}

func (b *Budget) slot(now time.Time) *struct {
	second         int64
	calls, retries int
} {
	s := &b.slots[now.Unix()%int64(len(b.slots))]
	if s.second != now.Unix() {
		s.second, s.calls, s.retries = now.Unix(), 0, 0
	}
	return s
}

func (b *Budget) sums(now time.Time) (calls, retries int) {
	oldest := now.Unix() - int64(len(b.slots)) + 1
	for _, s := range b.slots {
		if s.second >= oldest && s.second <= now.Unix() {
			calls += s.calls
			retries += s.retries
		}
	}
	return calls, retries
}
