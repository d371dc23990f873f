package route

import (
	"context"
	"time"

	"github.com/penstock/penstock/worker/backend"
)

// watch checks one member until ctx is done.
func (r *Router) watch(ctx context.Context, m *member, prober backend.Prober) {
	tick := time.NewTicker(r.p.HealthEvery)
	defer tick.Stop()
	for {
		err := r.check(ctx, prober)
		if ctx.Err() != nil {
			return
		}
		r.checked(m, err)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (r *Router) check(ctx context.Context, prober backend.Prober) error {
	ctx, cancel := context.WithTimeout(ctx, r.p.HealthTimeout)
	defer cancel()
	return prober.Probe(ctx)
}

// checked takes in the outcome of a check.
func (r *Router) checked(m *member, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m.checked = time.Now()
	if err == nil {
		m.fails = 0
		if m.down {
			m.down = false
			r.m.healthy(m.Name, true)
			r.log.Info("backend is healthy again", "backend", m.Name)
			r.notify()
		}
		return
	}
	m.lastErr = err
	if m.fails++; m.fails >= r.p.HealthFails && !m.down {
		m.down = true
		r.m.healthy(m.Name, false)
		r.log.Warn("backend is down", "backend", m.Name, "err", err)
	}
}
