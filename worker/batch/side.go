package batch

import "time"

// sideBySide learns how many calls at once the engines of a group run without
// slowing each other down. It begins at one and grows while calls that overlap
// take no longer than alone; once they do, it falls to what the slowdown says
// and from then on probes upwards, slowly at first, for engines change.
//
// What a call costs alone is learned from calls that ran alone. When that is
// too little known to judge by, the limit is one until a call has.
type sideBySide struct {
	limit  float64 // below 1 counts as 1
	step   float64 // growth per call; 0: it doubles, as at the start
	ratio  float64 // of calls that overlapped under this limit: time taken to cost alone, mean
	others float64 // calls beside them, mean
	seen   float64 // how many they were

	changes   int  // of the limit: a call says nothing of one that it did not begin under
	calibrate bool // the next call shall run alone
	unchecked int  // calls that overlapped since one ran alone

	running int
	load    float64 // integral of running over time, in call-seconds
	at      time.Time
}

const (
	slower     = 1.25 // calls that take this times their cost alone slow each other down
	unharmed   = 1.15 // below this they do not
	firstProbe = 0.02 // growth per call after a congestion; doubles with each place gained
	evidence   = 3    // calls that a judgement needs when they do not vary,
	perNoise   = 25   // and how many more when they vary as much as they take
	memory     = 50   // calls that the means go back
	eager      = 2    // growth with full batches: a queue that waits here can as well wait there
	doubt      = 0.3  // idle engines cost more than busy ones: rather a place too many
	aloneBelow = 0.05 // calls beside it, on average, that still count as none
	recheck    = 500  // calls that overlap until one must run alone again
)

// free is how many more calls may start.
func (s *sideBySide) free() int {
	if s.calibrate {
		return 1 - s.running
	}
	return int(max(1, s.limit)) - s.running
}

func (s *sideBySide) advance(now time.Time) {
	if dt := now.Sub(s.at); dt > 0 {
		s.load += float64(s.running) * dt.Seconds()
		s.at = now
	}
}

// run is one call that runs.
type run struct {
	began   time.Time
	load    float64 // the integral when it began
	full    bool    // so is its batch
	crowded bool    // it took the last place
	changes int     // of the limit until then
}

func (s *sideBySide) start(now time.Time, full bool) run {
	s.advance(now)
	s.running++
	return run{now, s.load, full, s.free() <= 0, s.changes}
}

// end ends a call and returns how many others ran beside it on average.
func (s *sideBySide) end(now time.Time, r run) float64 {
	s.advance(now)
	s.running--
	took := now.Sub(r.began).Seconds()
	if took <= 0 {
		return 0
	}
	return max(0, (s.load-r.load)/took-1)
}

// alone takes note that a call ran alone.
func (s *sideBySide) alone() { s.calibrate, s.unchecked = false, 0 }

// learn takes in a call that took ratio times its cost alone while others ran
// beside it. Calls of the group differ from their cost by noise anyway; only
// more than that is a slowdown.
func (s *sideBySide) learn(ratio, noise, others float64, r run) {
	if r.changes != s.changes {
		return
	}
	s.limit = max(1, s.limit)
	if others >= aloneBelow {
		s.seen++
		s.ratio += (ratio - s.ratio) / min(s.seen, memory)
		s.others += (others - s.others) / min(s.seen, memory)
		if s.unchecked++; s.unchecked >= recheck {
			s.calibrate = true
		}
	}
	judge := s.seen >= evidence+perNoise*noise
	switch {
	case judge && s.ratio > slower+noise:
		s.shrink((1 + s.others) / s.ratio)
	case r.crowded && (int(s.limit) == 1 || (judge || s.step == 0 && s.seen >= evidence) && s.ratio < unharmed+noise):
		s.grow(r.full)
	}
}

func (s *sideBySide) shrink(parallel float64) {
	s.limit = max(1, min(s.limit, parallel+doubt))
	s.step = firstProbe
	s.begin()
	s.calibrate = s.limit >= 2 // or is it the engine that has become slower?
}

func (s *sideBySide) grow(full bool) {
	before := int(s.limit)
	switch {
	case s.step == 0:
		s.limit *= 2
	case full:
		s.limit += min(1, eager*s.step)
	default:
		s.limit += s.step
	}
	if int(s.limit) == before {
		return
	}
	s.step = min(1, 2*s.step)
	s.begin()
}

// begin forgets what was seen under the limit before.
func (s *sideBySide) begin() {
	s.changes++
	s.ratio, s.others, s.seen = 0, 0, 0
}
