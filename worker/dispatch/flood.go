package dispatch

import (
	"slices"
	"time"

	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/worker/attempt"
)

// The flood guard keeps a fault that is not the tasks' own from filling the
// dead letters: when too many of a minute's outcomes are deaths of one code,
// the pool pauses and raises an alarm. Nothing dies of that code any more; what
// would have waits, free of charge. One task per probeEvery is run, and the
// first that does not fail of the code ends the pause.
const (
	floodWindow = 60 // seconds that outcomes are counted for
	// floodFloor deaths a minute are always let through, so that a few bad tasks
	// of a quiet pool are buried as they should be.
	floodFloor = 20
	// floodShare: more than one outcome in so many, 5 %, is a flood.
	floodShare = 20
	probeEvery = 10 * time.Second
)

// Flood is a pool's pause for the sake of the dead letters. The zero value: it
// is not paused.
type Flood struct {
	Code    fault.Code // what its tasks die of; empty: not paused
	Since   time.Time
	Waiting int // tasks that would be dead letters
}

// flood is the guard's state, owned by the loop.
type flood struct {
	counts outcomes
	code   fault.Code // not empty while the pool is paused
	since  time.Time
	probe  *entry
	next   time.Time // no probe before
	dying  []*entry  // they wait for the end of the pause
}

func (f *flood) paused() bool { return f.code != "" }

// outcomes counts the last minute's, by the second.
type outcomes struct {
	slots [floodWindow]struct {
		second int64
		all    int
		dead   map[fault.Code]int
	}
}

func (o *outcomes) add(now time.Time, died fault.Code) {
	s := &o.slots[now.Unix()%floodWindow]
	if s.second != now.Unix() {
		s.second, s.all, s.dead = now.Unix(), 0, nil
	}
	s.all++
	if died != "" {
		if s.dead == nil {
			s.dead = map[fault.Code]int{}
		}
		s.dead[died]++
	}
}

func (o *outcomes) sums(now time.Time, code fault.Code) (all, dead int) {
	for _, s := range o.slots {
		if age := now.Unix() - s.second; age >= 0 && age < floodWindow {
			all += s.all
			dead += s.dead[code]
		}
	}
	return all, dead
}

// floods reports whether one more death of a code is one too many.
func (o *outcomes) floods(now time.Time, code fault.Code) bool {
	all, dead := o.sums(now, code)
	return dead+1 > floodFloor && (dead+1)*floodShare > all+1
}

// survived counts an outcome that was no death.
func (l *Loop) survived() { l.flood.counts.add(time.Now(), "") }

// die buries a task, unless it would be part of a flood: then it waits.
func (l *Loop) die(e *entry, err error) {
	now, code := time.Now(), fault.CodeOf(err)
	if !l.flood.paused() && l.flood.counts.floods(now, code) {
		l.pause(now, code)
	}
	if l.flood.code == code {
		l.holdDying(e)
		return
	}
	l.flood.counts.add(now, code)
	l.buryEntry(e, err)
}

// pause stops the pool. What was about to start goes back to the scheduler.
func (l *Loop) pause(now time.Time, code fault.Code) {
	l.flood.code, l.flood.since, l.flood.next = code, now, now.Add(probeEvery)
	l.alarms.set(l.flood.next, func() {})
	for _, e := range l.batcher.Clear() {
		if e.state == forming {
			l.push(e, l.queue.Return)
		}
	}
	l.m.floods.Inc()
	l.tellFlood()
	l.log.Error("too many tasks die of one fault: the pool is paused, and probes until one does not", "code", code)
}

// holdDying keeps a task that would be a dead letter. Its last try does not
// count: it has it again when the pause is over, here or with the next owner.
func (l *Loop) holdDying(e *entry) {
	e.progress.Attempts = min(e.progress.Attempts, attempt.MaxAttempts-1)
	switch {
	case l.draining && e.task.OrderingKey == "":
		l.publishAgain(e, l.lane(e), 0)
		return
	case l.draining || e.revoked():
		l.rest(e)
		l.giveBack(e)
		return
	}
	l.rest(e)
	l.watchDeadline(e)
	e.dying = true
	l.flood.dying = append(l.flood.dying, e)
	l.tellFlood()
}

// feedProbe starts the one task that tells whether the fault is still there: one
// that has tries left rather than one that would die of it.
func (l *Loop) feedProbe(now time.Time) {
	f := &l.flood
	if p := f.probe; p != nil && (p.state == forming || p.state == running) || now.Before(f.next) {
		return
	}
	f.probe = nil
	if l.queue.Len() == 0 {
		l.wakeDying(1)
	}
	for _, model := range l.queue.Models() {
		if l.p.Router.Free(model) == 0 {
			continue
		}
		it, ok := l.queue.Pop(model)
		if !ok {
			continue
		}
		l.form(now, it.Value)
		if it.Value.state == forming {
			f.probe, f.next = it.Value, now.Add(probeEvery)
			l.alarms.set(f.next, func() {})
			return
		}
	}
}

// probed takes a probe's outcome. Only one that shows the fault gone ends the
// pause: a success, or a failure of the task's own.
func (l *Loop) probed(e *entry, v attempt.Verdict) {
	if l.flood.probe != e {
		return
	}
	l.flood.probe = nil
	if v.Next == attempt.Succeed || v.Next == attempt.Fail && v.Code != l.flood.code {
		l.endFlood()
	}
}

// endFlood lets the pool run again. Outcomes are counted anew, so that a fault
// that is still there pauses it again.
func (l *Loop) endFlood() {
	if !l.flood.paused() {
		return
	}
	l.log.Warn("the pool runs again after a flood of deaths", "code", l.flood.code, "waiting", len(l.flood.dying))
	l.flood.code, l.flood.probe, l.flood.counts = "", nil, outcomes{}
	l.wakeDying(len(l.flood.dying))
	l.tellFlood()
}

// wakeDying returns tasks that would have died to the scheduler.
func (l *Loop) wakeDying(n int) {
	woken := 0
	l.flood.dying = slices.DeleteFunc(l.flood.dying, func(e *entry) bool {
		switch {
		case e.state != waiting || !e.dying: // ended otherwise
			return true
		case woken == n:
			return false
		}
		woken++
		e.dying = false
		l.push(e, l.queue.Return)
		return true
	})
	l.tellFlood()
}

// tellFlood publishes the guard's state to other goroutines.
func (l *Loop) tellFlood() {
	l.seen.Store(&Flood{Code: l.flood.code, Since: l.flood.since, Waiting: len(l.flood.dying)})
	paused := 0.0
	if l.flood.paused() {
		paused = 1
	}
	l.m.paused.Set(paused)
	l.m.dying.Set(float64(len(l.flood.dying)))
}

// Flood returns whether and why the pool is paused for its dead letters. Safe
// for concurrent use.
func (l *Loop) Flood() Flood {
	if f := l.seen.Load(); f != nil && f.Code != "" {
		return *f
	}
	return Flood{}
}
