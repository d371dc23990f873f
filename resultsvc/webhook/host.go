package webhook

import (
	"errors"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/penstock/penstock/schema/webhook"
)

// hosts keeps deliveries that are due, by the host they go to, and says which
// may be tried now: a slow host takes no more than its share, and a dead one is
// left alone. The courier's lock guards it.
type hosts struct {
	p      Params
	byName map[string]*host
	turns  []*host // those with somebody waiting, whose turn it is first
	flying int     // attempts in flight, to all
}

// host is one receiver.
type host struct {
	name    string
	waiting []*delivery
	flying  int
	queued  bool // is among turns
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
	used    time.Time
}

const (
	// tripAfter failures in a row the host is left alone for restFor; then one
	// attempt is made to see.
	tripAfter = 5
	restFor   = 30 * time.Second
	// idleHost is how long a host without deliveries is remembered.
	idleHost = 10 * time.Minute
)

var errIll = errors.New("receiver is in trouble")

func newHosts(p Params) *hosts { return &hosts{p: p, byName: map[string]*host{}} }

// add queues a delivery that is due.
func (hs *hosts) add(d *delivery) {
	h := hs.byName[d.host]
	if h == nil {
		h = &host{name: d.host, breaker: gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
			MaxRequests: 1, Timeout: restFor,
			ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= tripAfter },
		})}
		hs.byName[d.host] = h
	}
	h.waiting = append(h.waiting, d)
	hs.enqueue(h)
}

func (hs *hosts) enqueue(h *host) {
	if !h.queued && len(h.waiting) > 0 {
		h.queued = true
		hs.turns = append(hs.turns, h)
	}
}

// flight is an attempt that may be made now.
type flight struct {
	d    *delivery
	host *host
	end  func(error) // tells the breaker
}

// launch takes what may be tried now, one of each host in turn.
func (hs *hosts) launch() []flight {
	var out []flight
	blocked := 0 // hosts in a row that may not be called now
	for hs.flying < hs.p.Concurrency && len(hs.turns) > blocked {
		h := hs.turns[0]
		hs.turns = hs.turns[1:]
		h.queued = false
		if f, ok := hs.next(h); ok {
			out, blocked = append(out, f), 0
		} else if len(h.waiting) > 0 {
			blocked++
		}
		hs.enqueue(h)
	}
	return out
}

func (hs *hosts) next(h *host) (flight, bool) {
	for len(h.waiting) > 0 && (h.waiting[0].gone || h.waiting[0].settled()) {
		h.waiting = h.waiting[1:]
	}
	if len(h.waiting) == 0 || h.flying >= hs.p.PerHost {
		return flight{}, false
	}
	end, err := h.breaker.Allow()
	if err != nil {
		return flight{}, false
	}
	d := h.waiting[0]
	h.waiting = h.waiting[1:]
	h.flying++
	hs.flying++
	return flight{d, h, end}, true
}

// land takes in how an attempt went.
func (hs *hosts) land(f flight, o webhook.Outcome, status int, now time.Time) {
	f.host.flying--
	hs.flying--
	f.host.used = now
	if ill(o, status) {
		f.end(errIll)
	} else {
		f.end(nil)
	}
}

// ill reports whether an outcome says that the host is in trouble, and not only
// that it does not like this event.
func ill(o webhook.Outcome, status int) bool {
	switch o {
	case webhook.TimedOut, webhook.Unreachable, webhook.Prohibited:
		return true
	case webhook.Refused:
		return status == 429 || status >= 500
	}
	return false
}

// blocked reports whether somebody waits for a host that rests.
func (hs *hosts) blocked() bool { return len(hs.turns) > 0 && hs.flying < hs.p.Concurrency }

// late is for how long the one that is due longest waits.
func (hs *hosts) late(now time.Time) time.Duration {
	late := time.Duration(0)
	for _, h := range hs.turns {
		for _, d := range h.waiting[:min(1, len(h.waiting))] {
			since := d.due
			if since.IsZero() {
				since = d.endedAt
			}
			late = max(late, now.Sub(since))
		}
	}
	return late
}

// resting counts the hosts that are left alone.
func (hs *hosts) resting() int {
	n := 0
	for _, h := range hs.byName {
		if h.breaker.State() == gobreaker.StateOpen {
			n++
		}
	}
	return n
}

// forgetIdle drops hosts nobody has called for long.
func (hs *hosts) forgetIdle(now time.Time) {
	for name, h := range hs.byName {
		if len(h.waiting) == 0 && h.flying == 0 && now.Sub(h.used) > idleHost {
			delete(hs.byName, name)
		}
	}
}
