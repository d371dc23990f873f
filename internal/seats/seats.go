// Package seats bounds how many connections are held open at once: of all
// callers together, and of one tenant. It counts this process only.
package seats

import (
	"sync"
	"time"

	"github.com/penstock/penstock/schema/fault"
)

// Params are the bounds.
type Params struct {
	All       int // open at once
	PerTenant int // of one tenant
}

// Seats counts what is open. It is safe for concurrent use.
type Seats struct {
	p Params

	mu   sync.Mutex // guards what follows
	all  int
	held map[string]int // by tenant
}

// New returns seats that are all free.
func New(p Params) *Seats { return &Seats{p: p, held: map[string]int{}} }

// retryAfter is the wait a caller is asked for who got no seat.
const retryAfter = time.Second

// Take takes a seat for a tenant; leave gives it back and is called once. The
// error says what is open too often, and what to do: Throttled where the tenant
// has too many itself, Unavailable where the process is full.
func (s *Seats) Take(tenant, what, instead string) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	code := fault.Unavailable
	if s.held[tenant] >= s.p.PerTenant {
		code = fault.Throttled
	}
	if s.all >= s.p.All || code == fault.Throttled {
		full := fault.New(code, "too many open %s: %s", what, instead)
		full.RetryAfter = retryAfter
		return nil, full
	}
	s.all++
	s.held[tenant]++
	return func() { s.leave(tenant) }, nil
}

func (s *Seats) leave(tenant string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.held[tenant]--; s.held[tenant] == 0 {
		delete(s.held, tenant)
	}
}
