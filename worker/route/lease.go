package route

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend"
)

// Lease is a place for one call on one backend. It is a backend.Backend itself:
// run calls through it, one after another, and the router learns from each.
// Release gives the place back, whether or not anything ran.
type Lease struct {
	r     *Router
	m     *member
	model string
	probe bool // this call tries a half-open breaker

	once sync.Once
	pass *pass // of the breaker, for the first call; guarded by the router's lock
}

var _ backend.Backend = (*Lease)(nil)

// acquire is called with the lock held.
func (r *Router) acquire(model string, exclude []string) (*Lease, bool) {
	now := time.Now()
	for candidates := r.candidates(model, exclude, now); len(candidates) > 0; {
		i := r.choose(candidates)
		if l, ok := r.lease(candidates[i], model, now); ok {
			return l, true
		}
		candidates = append(candidates[:i:i], candidates[i+1:]...)
	}
	return nil, false
}

func (r *Router) lease(m *member, model string, now time.Time) (*Lease, bool) {
	p, ok := r.breaker(m, model).enter(now)
	if !ok {
		return nil, false
	}
	m.inFlight++
	m.picks++
	r.m.picked(m.Name)
	r.m.inFlight(m.Name, m.inFlight)
	return &Lease{r: r, m: m, model: model, probe: p.trial != nil, pass: p}, true
}

// Name is the backend's.
func (l *Lease) Name() string { return l.m.Name }

// Probing reports whether the call tries a backend that was failing. The tasks
// of a call that fails so are not to blame: Run says so by the error's class.
func (l *Lease) Probing() bool { return l.probe }

// Open reports whether the backend still takes calls of the model.
func (l *Lease) Open() bool {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	return l.r.blocked(l.m, l.model, time.Now()).cause == nil
}

// Join implements backend.Backend.
func (l *Lease) Join(t *task.Task) (string, int) { return l.m.Backend.Join(t) }

// Run implements backend.Backend: it runs the items on the backend and tells
// the router how that went. A further call of a lease whose backend is no
// longer usable fails at once, with class system.
func (l *Lease) Run(ctx context.Context, items []backend.Item) []backend.Outcome {
	done, err := l.begin()
	if err != nil {
		return backend.Fail(len(items), err)
	}
	ended := error(errUnused) // what is said of a call that panics
	began := time.Now()
	defer func() { done(time.Since(began), ended) }()
	out := l.m.Backend.Run(ctx, items)
	ended = Verdict(out)
	if l.probe {
		blameSystem(out)
	}
	return out
}

// begin takes the lease's pass for the first call, and a new one for others.
func (l *Lease) begin() (done func(time.Duration, error), err error) {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	now, p := time.Now(), l.pass
	if l.pass = nil; p == nil {
		if b := l.r.blocked(l.m, l.model, now); b.cause != nil {
			return nil, b.cause
		}
		var ok bool
		if p, ok = l.r.breaker(l.m, l.model).enter(now); !ok {
			return nil, l.m.fault(fault.Unavailable, "takes no further call now", nil)
		}
	}
	return func(took time.Duration, err error) {
		l.r.mu.Lock()
		defer l.r.mu.Unlock()
		l.r.report(l.m, p, took, err)
	}, nil
}

// report is called with the lock held.
func (r *Router) report(m *member, p *pass, took time.Duration, err error) {
	r.end(p, err)
	switch verdictOf(err) {
	case well:
		m.respond(took)
		m.fails = 0 // it answers; a slow health check is no reason to leave it
	case ill:
		m.lastErr = err
	}
	if fault.CodeOf(err) == fault.Throttled && err != nil {
		r.throttle(m, fault.RetryAfterOf(err))
	}
	r.notify()
}

// end closes a pass. A trial that told nothing is repeated after a while.
func (r *Router) end(p *pass, err error) {
	p.end(err)
	if p.trial != nil && verdictOf(err) == silent {
		r.wake(r.p.BreakerOpen)
	}
}

// throttle leaves a backend alone for as long as it asked.
func (r *Router) throttle(m *member, wish time.Duration) {
	if wish <= 0 {
		wish = r.p.ThrottlePause
	}
	wish = min(wish, r.p.ThrottleLongest)
	if until := time.Now().Add(wish); until.After(m.throttled) {
		m.throttled = until
		r.wake(wish)
	}
	r.m.throttled(m.Name)
	r.log.Warn("backend asked for a pause", "backend", m.Name, "wait", wish)
}

// Release gives the place back. Only the first call counts.
func (l *Lease) Release() {
	l.once.Do(func() {
		l.r.mu.Lock()
		defer l.r.mu.Unlock()
		if l.pass != nil {
			l.r.end(l.pass, errUnused)
			l.pass = nil
		}
		l.m.inFlight--
		l.r.m.inFlight(l.m.Name, l.m.inFlight)
		l.r.notify()
	})
}

// Done reports the outcome of a call that was run on the backend by other means
// than Run, and releases the place.
func (l *Lease) Done(err error) {
	if done, refused := l.begin(); refused == nil {
		done(0, err)
	}
	l.Release()
}

// Verdict is what the outcomes of one call say of its backend: nil if any item
// succeeded or was refused on its own account, else the failure that weighs
// most.
func Verdict(out []backend.Outcome) error {
	var worst error
	for _, o := range out {
		switch verdictOf(o.Err) {
		case well:
			return nil
		case ill:
			if worst == nil || verdictOf(worst) != ill {
				worst = o.Err
			}
		case silent:
			if worst == nil || fault.CodeOf(o.Err) == fault.Throttled && verdictOf(worst) == silent {
				worst = o.Err
			}
		}
	}
	return worst
}

// blameSystem makes the failures of a call that tried an ill backend cost its
// tasks nothing: an outage sends no task to the dead letters.
func blameSystem(out []backend.Outcome) {
	for i, o := range out {
		e, ok := errors.AsType[*fault.Error](o.Err)
		if !ok || verdictOf(e) != ill || fault.ClassOf(e) != fault.ClassTask {
			continue
		}
		system := *e
		system.Class = fault.ClassSystem
		out[i].Err = &system
	}
}
