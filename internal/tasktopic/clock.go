package tasktopic

import (
	"sync"
	"time"
)

// Clock estimates the brokers' time, so that two machines with different
// clocks agree on when a wait in a retry tier is over. It pairs what we know of
// our own produce to a LogAppendTime topic (sent, acknowledged) with the time
// the broker stamped on it, which is seen when the record is read back; the
// acknowledgement itself does not carry it through the client.
//
// The broker stamped the record between sending and acknowledgement, so the
// middle of the two is wrong by at most half the round trip. An estimate with a
// shorter round trip replaces a longer one; every estimate ages, so that a
// drift is followed. Until the first pair it is the local clock. The zero value
// is ready, and safe for concurrent use.
type Clock struct {
	mu      sync.Mutex
	pending map[place]span
	offset  time.Duration // brokers' time minus ours
	trip    time.Duration // round trip of the estimate
	at      time.Time
}

type place struct {
	topic     string
	partition int32
	offset    int64
}

type span struct{ sent, acked time.Time }

const (
	// clockMemory is how long a good estimate outlives worse ones.
	clockMemory = time.Minute
	// clockPending bounds the produces that wait to be read back; past it new
	// ones are not followed, since some that are will do.
	clockPending = 256
)

// Now returns the present by the brokers' clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.offset)
}

func (c *Clock) acked(p place, sent, acked time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending == nil {
		c.pending = make(map[place]span)
	}
	if len(c.pending) >= clockPending {
		for old, s := range c.pending { // read by another process, or never
			if acked.Sub(s.acked) > clockMemory {
				delete(c.pending, old)
			}
		}
	}
	if len(c.pending) < clockPending {
		c.pending[p] = span{sent, acked}
	}
}

func (c *Clock) observe(p place, stamped time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ours := c.pending[p]
	if !ours {
		return
	}
	delete(c.pending, p)
	trip := s.acked.Sub(s.sent)
	if !c.at.IsZero() && trip > c.trip && s.acked.Sub(c.at) < clockMemory {
		return
	}
	c.offset, c.trip, c.at = stamped.Sub(s.sent.Add(trip/2)), trip, s.acked
}
