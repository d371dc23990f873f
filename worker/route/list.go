package route

import (
	"cmp"
	"slices"
	"time"

	"github.com/penstock/penstock/schema/fault"
)

// Status is what an operator sees of one backend.
type Status struct {
	Pool            string          `json:"pool"`
	Name            string          `json:"name"`
	Models          []string        `json:"models,omitempty"` // empty: any
	Healthy         bool            `json:"healthy"`
	InFlight        int             `json:"in_flight"`
	Concurrency     int             `json:"concurrency"`
	Picks           int64           `json:"picks"`
	ResponseSeconds float64         `json:"response_seconds,omitempty"` // smoothed
	PausedUntil     time.Time       `json:"paused_until,omitzero"`
	LastFault       fault.Code      `json:"last_fault,omitempty"`
	Breakers        []BreakerStatus `json:"breakers,omitempty"`
}

// BreakerStatus is the breaker of one model on a backend.
type BreakerStatus struct {
	Model    string `json:"model"`
	State    string `json:"state"` // closed, half-open, open
	Calls    int    `json:"calls"` // that ended in the window
	Failures int    `json:"failures"`
}

// List returns the state of every backend, in the order of the pool.
func (r *Router) List() []Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	out := make([]Status, len(r.members))
	for i, m := range r.members {
		out[i] = Status{
			Pool: r.p.Pool, Name: m.Name, Models: slices.Clone(m.Models), Healthy: !m.down,
			InFlight: m.inFlight, Concurrency: m.Concurrency, Picks: m.picks,
			ResponseSeconds: m.seconds, Breakers: m.breakerList(),
		}
		if now.Before(m.throttled) {
			out[i].PausedUntil = m.throttled
		}
		if m.lastErr != nil {
			out[i].LastFault = fault.CodeOf(m.lastErr)
		}
	}
	return out
}

func (m *member) breakerList() []BreakerStatus {
	out := make([]BreakerStatus, 0, len(m.breakers))
	for model, b := range m.breakers {
		state, c := b.State(), b.Counts()
		out = append(out, BreakerStatus{model, state.String(), int(c.TotalSuccesses + c.TotalFailures), int(c.TotalFailures)})
	}
	slices.SortFunc(out, func(a, b BreakerStatus) int { return cmp.Compare(a.Model, b.Model) })
	return out
}
