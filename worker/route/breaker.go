package route

import (
	"errors"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/penstock/penstock/schema/fault"
)

// breaker is that of one backend and model. The router's lock guards it and is
// held at every call, so state changes happen under it too.
type breaker struct {
	*gobreaker.TwoStepCircuitBreaker[struct{}]
	opened  time.Time
	tried   time.Time // when it was last tried half open
	between time.Duration
	changes int // of state so far: what began before a change says nothing after it
	inRow   int // failures since the last success, however long ago
}

// pass lets one call through a breaker.
type pass struct {
	b       *breaker
	changes int
	trial   func(error) // half open: the library waits for this call's end
}

// enter lets a call begin, if any may.
func (b *breaker) enter(now time.Time) (*pass, bool) {
	p := &pass{b: b}
	switch b.State() {
	case gobreaker.StateOpen:
		return nil, false
	case gobreaker.StateHalfOpen:
		var err error
		if p.trial, err = b.Allow(); err != nil {
			return nil, false
		}
		b.tried = now
	}
	p.changes = b.changes
	return p, true
}

// end takes in how the call ended. The library files an end under the time of
// the beginning and drops what began before its window: a hanging backend would
// never open its breaker. So a call of a closed breaker is shown to it whole,
// at its end.
func (p *pass) end(err error) {
	switch {
	case p.b.changes != p.changes:
		return
	case p.trial != nil:
		p.trial(err)
		return
	}
	switch verdictOf(err) {
	case well:
		p.b.inRow = 0
	case ill:
		p.b.inRow++
	}
	if done, refused := p.b.Allow(); refused == nil {
		done(err)
	}
}

// late is added to the end of an open period: the library looks for an end
// that has passed, not for one that is now.
const late = time.Millisecond

// maxBreakers bounds the breakers of a backend that serves any model: beyond
// it, models share one.
const maxBreakers = 256

// breakerOf returns the breaker of a model, if there is one.
func (m *member) breakerOf(model string) (*breaker, bool) {
	if b, known := m.breakers[model]; known || len(m.breakers) < maxBreakers {
		return b, known
	}
	b, known := m.breakers["others"]
	return b, known
}

// breaker returns that of a backend and model, and makes it if there is none.
func (r *Router) breaker(m *member, model string) *breaker {
	if b, known := m.breakerOf(model); known {
		return b
	}
	if len(m.breakers) >= maxBreakers {
		model = "others"
	}
	b := &breaker{between: r.p.BreakerOpen}
	gauge := r.m.breakerOf(m.Name, model)
	b.TwoStepCircuitBreaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:  1,
		Interval:     r.p.BreakerWindow,
		BucketPeriod: r.p.BreakerWindow / 10,
		Timeout:      r.p.BreakerOpen,
		ReadyToTrip:  func(c gobreaker.Counts) bool { return b.inRow >= r.p.BreakerInRow || r.trips(c) },
		IsSuccessful: func(err error) bool { return verdictOf(err) == well },
		IsExcluded:   func(err error) bool { return verdictOf(err) == silent },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			gauge.Set(float64(to)) // 0 closed, 1 half open, 2 open
			b.changes++
			b.inRow = 0
			if to == gobreaker.StateOpen {
				b.opened = time.Now()
				r.wake(r.p.BreakerOpen + late)
			}
			r.changedState(m, model, from, to)
		},
	})
	m.breakers[model] = b
	return b
}

func (r *Router) changedState(m *member, model string, from, to gobreaker.State) {
	log := r.log.With("backend", m.Name, "model", model, "from", from.String())
	switch to {
	case gobreaker.StateOpen:
		log.Warn("breaker opens")
	case gobreaker.StateClosed:
		log.Info("breaker closes")
	default:
		log.Debug("breaker is half open")
	}
}

// trips reports whether too many of the window's calls failed.
func (r *Router) trips(c gobreaker.Counts) bool {
	ended := c.TotalSuccesses + c.TotalFailures
	return int(ended) >= r.p.BreakerCalls && float64(c.TotalFailures) >= r.p.BreakerRatio*float64(ended)
}

// shut reports whether no call may pass now, and when that may change.
func (b *breaker) shut(now time.Time) (until time.Time, shut bool) {
	switch b.State() {
	case gobreaker.StateOpen:
		return b.opened.Add(b.between + late), true
	case gobreaker.StateHalfOpen:
		if next := b.tried.Add(b.between); now.Before(next) {
			return next, true
		}
		if b.Counts().Requests > b.Counts().TotalExclusions { // one tries it now
			return now.Add(b.between), true
		}
	}
	return time.Time{}, false
}

// verdict is what a call's end says of the backend.
type verdict int

const (
	silent verdict = iota // nothing
	well                  // it answered, if only to refuse the input
	ill                   // it failed
)

// errUnused ends a call that never ran.
var errUnused = errors.New("the call was not made")

func verdictOf(err error) verdict {
	if err == nil {
		return well
	}
	if errors.Is(err, errUnused) {
		return silent
	}
	switch code := fault.CodeOf(err); {
	case fault.RuleOf(code).Breaker:
		return ill
	case code == fault.Rejected || code == fault.TooLarge:
		return well
	}
	return silent
}
