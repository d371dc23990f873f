package batch

import (
	"slices"
	"time"
)

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
	untold    int  // calls in a row whose time told nothing

	runs []run
	last int     // id of the newest
	load float64 // integral of their number over time, in call-seconds
	at   time.Time
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
	blindAfter = 8    // calls in a row that tell nothing until the limit opens
	mostBlind  = 256  // calls at once that it opens to

	// A call is overdue, and no longer counts against the limit, after both.
	overdueAfter = time.Second
	overdueTimes = 4 // of its cost

	recheck = 500 // calls that overlap until one must run alone again
)

// free is how many more calls may start; if none, next is when that changes
// without one of them ending: a call that takes far longer than it should hangs
// on its engine, and the others must not wait for it.
func (s *sideBySide) free(now time.Time) (n int, next time.Time) {
	n = int(max(1, s.limit))
	if s.calibrate {
		n = 1
	}
	for _, r := range s.runs {
		if !now.Before(r.overdue) {
			continue
		}
		n--
		if next.IsZero() || r.overdue.Before(next) {
			next = r.overdue
		}
	}
	return n, next
}

func (s *sideBySide) advance(now time.Time) {
	if dt := now.Sub(s.at); dt > 0 {
		s.load += float64(len(s.runs)) * dt.Seconds()
		s.at = now
	}
}

// run is one call that runs.
type run struct {
	id      int
	began   time.Time
	overdue time.Time
	load    float64 // the integral when it began
	full    bool    // so is its batch
	crowded bool    // it took the last place
	changes int     // of the limit until then
}

// start begins a call that should take about cost; 0: nobody knows.
func (s *sideBySide) start(now time.Time, cost time.Duration, full bool) run {
	s.advance(now)
	s.last++
	r := run{
		id: s.last, began: now, overdue: now.Add(max(overdueAfter, overdueTimes*cost)),
		load: s.load, full: full, changes: s.changes,
	}
	s.runs = append(s.runs, r)
	free, _ := s.free(now)
	r.crowded = free <= 0
	return r
}

// end ends a call and returns how many others ran beside it on average; false
// if it had ended already.
func (s *sideBySide) end(now time.Time, r run) (others float64, ok bool) {
	s.advance(now)
	i := slices.IndexFunc(s.runs, func(o run) bool { return o.id == r.id })
	if i < 0 {
		return 0, false
	}
	s.runs = slices.Delete(s.runs, i, i+1)
	if took := now.Sub(r.began).Seconds(); took > 0 {
		others = max(0, (s.load-r.load)/took-1)
	}
	return others, true
}

// silent takes note of a call whose time tells nothing: it failed or was cut
// short. Where hardly any call tells something the limit opens, for engines
// that idle cost more than engines that queue.
func (s *sideBySide) silent() {
	if s.untold++; s.untold%blindAfter == 0 {
		s.calibrate = false
		s.limit = min(mostBlind, 2*max(1, s.limit))
		s.begin()
	}
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
	s.limit, s.untold = max(1, s.limit), 0
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
