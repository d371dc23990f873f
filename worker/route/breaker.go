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
}

// late is added to the end of an open period: the library looks for an end
// that has passed, not for one that is now.
const late = time.Millisecond

// breaker returns that of a backend and model.
func (r *Router) breaker(m *member, model string) *breaker {
	if b, known := m.breakers[model]; known {
		return b
	}
	b := &breaker{between: r.p.BreakerOpen}
	gauge := r.m.breakerOf(m.Name, model)
	b.TwoStepCircuitBreaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:  1,
		Interval:     r.p.BreakerWindow,
		BucketPeriod: r.p.BreakerWindow / 10,
		Timeout:      r.p.BreakerOpen,
		ReadyToTrip:  r.trips,
		IsSuccessful: func(err error) bool { return verdictOf(err) == well },
		IsExcluded:   func(err error) bool { return verdictOf(err) == silent },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			gauge.Set(float64(to)) // 0 closed, 1 half open, 2 open
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

// trips is asked after each failure. Requests of the library's counts are
// calls that began; only those that ended say anything.
func (r *Router) trips(c gobreaker.Counts) bool {
	ended := c.TotalSuccesses + c.TotalFailures
	return int(c.ConsecutiveFailures) >= r.p.BreakerInRow ||
		int(ended) >= r.p.BreakerCalls && float64(c.TotalFailures) >= r.p.BreakerRatio*float64(ended)
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
