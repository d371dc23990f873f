// Package admit keeps one tenant from taking the whole ingress: a rate of tasks
// and a budget of request bytes in flight, per tenant and process.
//
// Both are local: N processes admit N times the rate. Limits may be lost with
// the process and are never a promise to the tenant.
package admit

import (
	"math"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/penstock/penstock/schema/fault"
)

// Params are the limits of every tenant; zero switches one off.
type Params struct {
	TasksPerSecond float64
	Burst          int   // tasks at once; at least 1 where TasksPerSecond is set
	InFlightBytes  int64 // of request bodies being read and accepted
	Exempt         string
}

// Limits admits requests. It is safe for concurrent use.
type Limits struct {
	p        Params
	inFlight prometheus.Gauge

	mu      sync.Mutex // guards tenants and each of them
	tenants map[string]*tenant
}

type tenant struct {
	tasks *rate.Limiter
	bytes int64
	seen  time.Time
}

// Bounds on the memory of tenants that went away.
const (
	sweepAbove = 4096
	forgetIn   = 10 * time.Minute
)

// New returns Limits.
func New(p Params, reg prometheus.Registerer) *Limits {
	return &Limits{p: p, inFlight: newInFlight(reg), tenants: make(map[string]*tenant)}
}

// Task takes one task from the tenant's rate. The error is fault.Throttled with
// the time until the next task is admitted.
func (l *Limits) Task(name string) error {
	if l.p.TasksPerSecond <= 0 || name == l.p.Exempt {
		return nil
	}
	now := time.Now()
	l.mu.Lock()
	r := l.tenant(name, now).tasks.ReserveN(now, 1)
	l.mu.Unlock()
	wait := r.DelayFrom(now)
	if wait == 0 {
		return nil
	}
	r.CancelAt(now)
	err := fault.New(fault.Throttled, "more than %g tasks per second; send again after the time in Retry-After", l.p.TasksPerSecond)
	err.RetryAfter = wait
	return err
}

// Standing is how a tenant stands to its rate of tasks.
type Standing struct {
	Limit     int           // tasks at once
	Remaining int           // of these, now
	Reset     time.Duration // until all of them are there again
}

// Standing returns how a tenant stands; false where there is no rate.
func (l *Limits) Standing(name string) (Standing, bool) {
	if l.p.TasksPerSecond <= 0 || name == l.p.Exempt {
		return Standing{}, false
	}
	now := time.Now()
	l.mu.Lock()
	tokens := l.tenant(name, now).tasks.TokensAt(now)
	l.mu.Unlock()
	missing := max(0, float64(l.p.Burst)-tokens)
	return Standing{
		Limit: l.p.Burst, Remaining: int(max(0, tokens)), Reset: time.Duration(missing / l.p.TasksPerSecond * float64(time.Second)),
	}, true
}

// Enter reserves the bytes of a request body. The error is fault.Throttled.
func (l *Limits) Enter(name string, bytes int64) (*Pass, error) {
	l.inFlight.Add(float64(bytes))
	pass := &Pass{limits: l, tenant: name, bytes: bytes}
	if l.p.InFlightBytes <= 0 || name == l.p.Exempt {
		return pass, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.tenant(name, time.Now())
	if t.bytes > 0 && t.bytes+bytes > l.p.InFlightBytes { // one request is always let in
		l.inFlight.Sub(float64(bytes))
		err := fault.New(fault.Throttled, "more than %d bytes of requests in flight; wait for answers before sending more", l.p.InFlightBytes)
		err.RetryAfter = time.Second
		return nil, err
	}
	t.bytes += bytes
	pass.counted = true
	return pass, nil
}

// tenant returns the state of a tenant; the caller holds mu.
func (l *Limits) tenant(name string, now time.Time) *tenant {
	t := l.tenants[name]
	if t == nil {
		if len(l.tenants) >= sweepAbove {
			l.sweep(now)
		}
		t = &tenant{tasks: rate.NewLimiter(limitOf(l.p.TasksPerSecond), l.p.Burst)}
		l.tenants[name] = t
	}
	t.seen = now
	return t
}

func (l *Limits) sweep(now time.Time) {
	for name, t := range l.tenants {
		if t.bytes == 0 && now.Sub(t.seen) > forgetIn {
			delete(l.tenants, name)
		}
	}
}

func limitOf(perSecond float64) rate.Limit {
	if perSecond <= 0 {
		return rate.Limit(math.Inf(1))
	}
	return rate.Limit(perSecond)
}

// Pass is one request inside. Its owner calls Leave once.
type Pass struct {
	limits  *Limits
	tenant  string
	bytes   int64
	counted bool // against the tenant's budget
}

// Shrink gives back what the body turned out not to need.
func (p *Pass) Shrink(to int64) {
	if to < p.bytes {
		p.release(p.bytes - to)
		p.bytes = to
	}
}

// Leave gives the bytes back.
func (p *Pass) Leave() {
	p.release(p.bytes)
	p.bytes = 0
}

func (p *Pass) release(bytes int64) {
	p.limits.inFlight.Sub(float64(bytes))
	if !p.counted {
		return
	}
	p.limits.mu.Lock()
	defer p.limits.mu.Unlock()
	if t := p.limits.tenants[p.tenant]; t != nil {
		t.bytes -= bytes
	}
}
