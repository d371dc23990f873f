package route

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend"
)

// Strategy is how a backend is chosen among those that could run a call. The
// words are the catalog's.
type Strategy string

// Strategies.
const (
	Least        Strategy = "least"         // the less busy of two drawn at random (default)
	RoundRobin   Strategy = "round_robin"   // in turn
	Random       Strategy = "random"        // any
	ResponseTime Strategy = "response_time" // at random, weighted by how fast each answers
)

// Member is one backend of the pool.
type Member struct {
	Name        string
	Backend     backend.Backend
	Models      []string // that it serves; empty: any
	Concurrency int      // calls at once; default 8
}

// Params are a router's parts and limits; zero values are defaults.
type Params struct {
	Pool     string
	Strategy Strategy // default Least
	Members  []Member
	Log      *slog.Logger
	Metrics  prometheus.Registerer

	HealthEvery   time.Duration // between active checks, default 5 s
	HealthTimeout time.Duration // of one, default 2 s
	HealthFails   int           // in a row until a backend is down, default 3

	BreakerWindow   time.Duration // that failures are counted over, default 10 s
	BreakerRatio    float64       // of failed calls that opens it, default 0.5
	BreakerCalls    int           // in the window before the ratio counts, default 10
	BreakerInRow    int           // failures in a row that open it, default 5
	BreakerOpen     time.Duration // until it is tried again, and between tries; default 1 s
	ThrottlePause   time.Duration // after "too many requests" without a time, default 1 s
	ThrottleLongest time.Duration // no backend is left alone longer, default 1 min
}

func (p Params) withDefaults() Params {
	set := func(d *time.Duration, otherwise time.Duration) {
		if *d <= 0 {
			*d = otherwise
		}
	}
	count := func(n *int, otherwise int) {
		if *n <= 0 {
			*n = otherwise
		}
	}
	if p.Strategy == "" {
		p.Strategy = Least
	}
	if p.BreakerRatio <= 0 {
		p.BreakerRatio = 0.5
	}
	if p.Log == nil {
		p.Log = slog.New(slog.DiscardHandler)
	}
	if p.Metrics == nil {
		p.Metrics = prometheus.NewRegistry()
	}
	set(&p.HealthEvery, 5*time.Second)
	set(&p.HealthTimeout, 2*time.Second)
	count(&p.HealthFails, 3)
	set(&p.BreakerWindow, 10*time.Second)
	count(&p.BreakerCalls, 10)
	count(&p.BreakerInRow, 5)
	set(&p.BreakerOpen, time.Second)
	set(&p.ThrottlePause, time.Second)
	set(&p.ThrottleLongest, time.Minute)
	return p
}

// Router chooses backends of one pool. It is safe for concurrent use.
type Router struct {
	p       Params
	log     *slog.Logger
	m       *metrics
	changed chan struct{} // holds one wish to look again

	mu      sync.Mutex // guards everything below and in members; never held across I/O
	members []*member
	turn    int           // of RoundRobin
	again   chan struct{} // closed and replaced at each change, for Acquire
}

// ErrNoBackend is returned for a model that no backend of the pool serves.
var ErrNoBackend = errors.New("no backend of the pool serves the model")

// New returns a router over the members, all of them taken to be well until
// they show otherwise.
func New(p Params) (*Router, error) {
	p = p.withDefaults()
	if len(p.Members) == 0 {
		return nil, fmt.Errorf("pool %q has no backends", p.Pool)
	}
	switch p.Strategy {
	case Least, RoundRobin, Random, ResponseTime:
	default:
		return nil, fmt.Errorf("pool %q: route %q is none of least, round_robin, random and response_time", p.Pool, p.Strategy)
	}
	r := &Router{
		p: p, log: p.Log.With("pool", p.Pool),
		changed: make(chan struct{}, 1), again: make(chan struct{}),
	}
	for _, m := range p.Members {
		if slices.ContainsFunc(r.members, func(o *member) bool { return o.Name == m.Name }) {
			return nil, fmt.Errorf("pool %q: backend %q is named twice", p.Pool, m.Name)
		}
		r.members = append(r.members, newMember(m))
	}
	var err error
	if r.m, err = newMetrics(p.Metrics, p.Pool, r.members); err != nil {
		return nil, fmt.Errorf("pool %q: %w", p.Pool, err)
	}
	return r, nil
}

// Run checks the members' health until ctx is done.
func (r *Router) Run(ctx context.Context) {
	defer r.m.unregister()
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, m := range r.members {
		if prober, can := m.Backend.(backend.Prober); can {
			wg.Go(func() { r.watch(ctx, m, prober) })
		}
	}
}

// Join says which tasks may share a call and how many, whichever backend will
// run it: the key of all that serve the model, and the smallest of their
// limits.
func (r *Router) Join(t *task.Task) (key string, limit int) {
	var keys []string
	for _, m := range r.members {
		if !m.serves(t.Model) {
			continue
		}
		k, n := m.Backend.Join(t)
		if !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
		if limit == 0 || n < limit {
			limit = n
		}
	}
	return strings.Join(keys, "\x00"), max(1, limit)
}

// Changed wakes whoever waits for room: it may have grown.
func (r *Router) Changed() <-chan struct{} { return r.changed }

// notify is called with the lock held.
func (r *Router) notify() {
	close(r.again)
	r.again = make(chan struct{})
	select {
	case r.changed <- struct{}{}:
	default: // a wish is there already
	}
}

// wake lets those who wait look again after a time.
func (r *Router) wake(after time.Duration) {
	time.AfterFunc(after, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.notify()
	})
}

// Free is how many more calls for a model could start now.
func (r *Router) Free(model string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, n := time.Now(), 0
	for _, m := range r.members {
		if m.serves(model) {
			n += r.room(m, model, now)
		}
	}
	return n
}

// Paused says why nothing can run a model now, whatever its load, and when to
// look again. The cause is nil while at least one backend could. It is a
// *fault.Error of class system: the pool waits, and no task is to blame.
func (r *Router) Paused(model string) (until time.Time, cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for _, m := range r.members {
		if !m.serves(model) {
			continue
		}
		block := r.blocked(m, model, now)
		if block.cause == nil {
			return time.Time{}, nil
		}
		if cause == nil || block.until.Before(until) {
			until, cause = block.until, block.cause
		}
	}
	if cause == nil {
		cause = &fault.Error{Code: fault.Unavailable, Class: fault.ClassSystem, Message: ErrNoBackend.Error(), Err: ErrNoBackend}
		until = now.Add(r.p.HealthEvery)
	}
	return until, cause
}

// TryAcquire reserves a place for a call and chooses the backend; false if none
// has room. Backends in exclude are only chosen when no other serves the model
// and could: failover first.
func (r *Router) TryAcquire(model string, exclude ...string) (*Lease, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.acquire(model, exclude)
}

// Acquire is TryAcquire that waits for room until ctx is done.
func (r *Router) Acquire(ctx context.Context, model string, exclude ...string) (*Lease, error) {
	if !slices.ContainsFunc(r.members, func(m *member) bool { return m.serves(model) }) {
		return nil, ErrNoBackend
	}
	for {
		r.mu.Lock()
		l, ok := r.acquire(model, exclude)
		again := r.again
		r.mu.Unlock()
		if ok {
			return l, nil
		}
		select {
		case <-again:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
