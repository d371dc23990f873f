package lifecycle

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// ErrDraining is what Readiness says once the process has begun to stop.
var ErrDraining = errors.New("draining")

// Readiness says whether a process wants traffic. The zero value is ready;
// parts name what they wait for with Set(name, err) and clear it with
// Set(name, nil). Safe for concurrent use.
type Readiness struct {
	mu       sync.Mutex
	checks   map[string]error
	started  bool // sticky: Err was nil once
	draining bool
}

// Check is the state of one named condition; a nil Err is good.
type Check struct {
	Name string
	Err  error
}

// Set records the state of one named check.
func (r *Readiness) Set(name string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.checks == nil {
		r.checks = make(map[string]error)
	}
	r.checks[name] = err
}

// Drain turns readiness off for good.
func (r *Readiness) Drain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.draining = true
}

// Draining reports whether Drain was called.
func (r *Readiness) Draining() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.draining
}

// Err returns nil while traffic is wanted, else ErrDraining or every failing
// check by name.
func (r *Readiness) Err() error {
	if r.Draining() {
		return ErrDraining
	}
	err := r.failing()
	if err == nil {
		r.mu.Lock()
		r.started = true
		r.mu.Unlock()
	}
	return err
}

// Started returns nil once the process has been ready at least once; it does
// not go back when a dependency fails later.
func (r *Readiness) Started() error {
	err := r.Err()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.started {
		return nil
	}
	return err
}

// Checks returns every check, sorted by name.
func (r *Readiness) Checks() []Check {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Check, 0, len(r.checks))
	for _, name := range slices.Sorted(maps.Keys(r.checks)) {
		out = append(out, Check{name, r.checks[name]})
	}
	return out
}

// failing joins the checks that are not good, in the order of their names.
func (r *Readiness) failing() error {
	var errs []error
	for _, c := range r.Checks() {
		if c.Err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.Name, c.Err))
		}
	}
	return errors.Join(errs...)
}
