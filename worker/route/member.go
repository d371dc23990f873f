package route

import (
	"fmt"
	"slices"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/penstock/penstock/schema/fault"
)

// member is a backend with what the router knows of it. The router's lock
// guards it.
type member struct {
	Member
	inFlight int
	picks    int64
	breakers map[string]*breaker // by model
	seconds  float64             // smoothed response time, 0 if unknown

	down      bool // by active checks
	fails     int  // checks that failed in a row
	checked   time.Time
	lastErr   error
	throttled time.Time // left alone until then
}

func newMember(m Member) *member {
	if m.Concurrency <= 0 {
		m.Concurrency = 8
	}
	return &member{Member: m, breakers: map[string]*breaker{}}
}

func (m *member) serves(model string) bool {
	return len(m.Models) == 0 || slices.Contains(m.Models, model)
}

// block is why a member may not be called, and until when.
type block struct {
	until time.Time
	cause error
}

func (r *Router) blocked(m *member, model string, now time.Time) block {
	switch {
	case m.down:
		return block{m.checked.Add(r.p.HealthEvery), m.fault(fault.Unavailable, "fails its health checks", m.lastErr)}
	case now.Before(m.throttled):
		return block{m.throttled, m.fault(fault.Throttled, "asked for a pause", nil)}
	}
	b, known := m.breakerOf(model)
	if !known {
		return block{}
	}
	if until, open := b.shut(now); open {
		return block{until, m.fault(fault.Unavailable, "failed too often: its breaker is open", nil)}
	}
	return block{}
}

func (m *member) fault(c fault.Code, message string, err error) error {
	return &fault.Error{
		Code: c, Class: fault.ClassSystem, Backend: m.Name, Err: err,
		Message: fmt.Sprintf("backend %s %s", m.Name, message),
	}
}

// room is how many more calls a member may run now. A half-open breaker lets
// one through.
func (r *Router) room(m *member, model string, now time.Time) int {
	free := m.Concurrency - m.inFlight
	if free <= 0 || r.blocked(m, model, now).cause != nil {
		return 0
	}
	if b, known := m.breakerOf(model); known && b.State() == gobreaker.StateHalfOpen {
		return 1
	}
	return free
}

// respond takes in how long a call took.
func (m *member) respond(took time.Duration) {
	const weight = 0.2 // of the newest
	if took <= 0 {
		return
	}
	if m.seconds == 0 {
		m.seconds = took.Seconds()
		return
	}
	m.seconds += weight * (took.Seconds() - m.seconds)
}
