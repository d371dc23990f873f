package batch

import "time"

// sideBySide learns how many calls at once the engines of a group run without
// slowing each other down. It begins at one and grows while calls that overlap
// take no longer than alone; once they do, it falls to what the slowdown says
// and from then on probes upwards, slowly at first, for engines change.
type sideBySide struct {
	limit  float64 // below 1 counts as 1
	step   float64 // growth per call; 0: as at the start, 1
	ratio  float64 // of calls that overlapped: time taken to cost alone, smoothed
	others float64 // calls beside them, smoothed
	weight float64 // 0: nothing overlapped since the last change

	running int
	load    float64 // integral of running over time, in call-seconds
	at      time.Time
}

const (
	slower     = 1.25 // calls that take this times their cost alone slow each other down
	unharmed   = 1.15 // below this they do not
	firstProbe = 0.02 // growth per call after a congestion; doubles with each place gained
	smooth     = 0.2  // weight of the newest call
	aloneBelow = 0.05 // calls beside it, on average, that still count as none
)

// free is how many more calls may start.
func (s *sideBySide) free() int { return int(max(1, s.limit)) - s.running }

func (s *sideBySide) advance(now time.Time) {
	if dt := now.Sub(s.at); dt > 0 {
		s.load += float64(s.running) * dt.Seconds()
		s.at = now
	}
}

// start begins a call. Crowded: it took the last place.
func (s *sideBySide) start(now time.Time) (load float64, crowded bool) {
	s.advance(now)
	s.running++
	return s.load, s.free() <= 0
}

// end ends a call and returns how many others ran beside it on average.
func (s *sideBySide) end(now, began time.Time, load float64) float64 {
	s.advance(now)
	s.running--
	took := now.Sub(began).Seconds()
	if took <= 0 {
		return 0
	}
	return max(0, (s.load-load)/took-1)
}

// learn takes in a call that took ratio times its cost alone while others ran
// beside it. Calls of the group differ from their cost by noise anyway; only
// more than that is a slowdown.
func (s *sideBySide) learn(ratio, noise, others float64, crowded bool) {
	s.limit = max(1, s.limit)
	if others >= aloneBelow {
		s.weight = smooth + (1-smooth)*s.weight
		s.ratio += smooth / s.weight * (ratio - s.ratio)
		s.others += smooth / s.weight * (others - s.others)
	}
	switch {
	case s.weight > 0 && s.ratio > slower+noise:
		s.shrink((1 + s.others) / s.ratio)
	case crowded && (s.weight == 0 || s.ratio < unharmed+noise):
		s.grow()
	}
}

func (s *sideBySide) shrink(parallel float64) {
	s.limit = max(1, min(s.limit, parallel))
	s.step = firstProbe
	s.ratio, s.others, s.weight = 0, 0, 0
}

func (s *sideBySide) grow() {
	if s.step == 0 {
		s.limit++
		return
	}
	before := int(s.limit)
	s.limit += s.step
	if int(s.limit) > before {
		s.step = min(1, 2*s.step)
	}
}
