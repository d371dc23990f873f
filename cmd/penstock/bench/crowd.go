package bench

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/penstock/penstock/cmd/system"
)

// Crowd compares what it costs to hold event streams of which nothing comes, and
// how fast events reach some of them, with a bare server of event streams, which
// makes its events itself or takes them from Redis. The servers are processes of
// their own, one after another, and the streams are opened by this process.
type Crowd struct {
	Streams int
	Rate    float64       // events a second, each to a random stream
	Settle  time.Duration // from when the streams are open until memory is read
	Length  time.Duration // how long events come
}

// CrowdSide is one server over one protocol.
type CrowdSide struct {
	Protocol string
	PerHead  float64 // bytes of resident memory for each stream
	Write    Result  // what it took to hand an event in; no calls where nobody does
	Delivery Result  // from the stamp, before that, until a client had the event
	CPU      time.Duration
}

// CrowdSides are the servers over one protocol: ours, and bare ones. Bare makes
// its events itself, Told has them from another process over HTTP, Fed from Redis.
type CrowdSides struct{ Ours, Bare, Told, Fed CrowdSide }

// Memory is our memory of a stream over the bare server's.
func (s CrowdSides) Memory() float64 { return s.Ours.PerHead / s.Bare.PerHead }

// Delay is our 99th percentile of delivery over a bare server's.
func (s CrowdSides) Delay(than CrowdSide) float64 {
	return s.Ours.Delivery.Quantile(99).Seconds() / than.Delivery.Quantile(99).Seconds()
}

// Protocols of the comparison. Over HTTP/1.1 a stream is a connection of its
// own; over h2c each connection has as many as the server allows.
const (
	overHTTP1 = "HTTP/1.1"
	overH2C   = "h2c"
)

// venue is a server of streams.
type venue interface {
	// where is the process and the URL of each of n streams.
	where(n int) (pid int, urls []string)
	// collect has the process collect its garbage, once.
	collect(ctx context.Context) error
	// begin is called once the memory was read.
	begin(ctx context.Context) error
	// emit has events of a rate written for a length, and says how many there were
	// and how long the writes took, if the server does not write them itself.
	emit(ctx context.Context, rate float64, length time.Duration) (sent int, writes Result, err error)
}

// side measures one server.
func (c Crowd) side(ctx context.Context, v venue, protocol string) (out CrowdSide, err error) {
	pid, urls := v.where(c.Streams)
	before, err := c.empty(ctx, v, protocol)
	if err != nil {
		return out, err
	}
	a := newAudience(protocol)
	defer a.close()
	if err := a.open(ctx, urls); err != nil {
		return out, err
	}
	after, err := c.settled(ctx, v, pid)
	if err != nil {
		return out, err
	}
	out = CrowdSide{Protocol: protocol, PerHead: float64(after-before) / float64(c.Streams)}
	if err := v.begin(ctx); err != nil {
		return out, err
	}
	if err := v.collect(ctx); err != nil { // what it took to begin is no event's
		return out, err
	}
	m, err := startMeter([]Part{{"server", pid}})
	if err != nil {
		return out, err
	}
	if out.Write, out.Delivery, err = c.deliver(ctx, v, a); err != nil {
		return out, err
	}
	used, err := m.stop()
	if err != nil {
		return out, err
	}
	out.CPU = used[0]
	return out, nil
}

// empty is the memory of a process that has held some streams, and does not any
// more: what it keeps for itself then, such as its connections to Redis, is no
// stream's.
func (c Crowd) empty(ctx context.Context, v venue, protocol string) (int64, error) {
	pid, urls := v.where(min(2*doors, c.Streams))
	a := newAudience(protocol)
	err := a.open(ctx, urls)
	a.close()
	if err != nil {
		return 0, err
	}
	return c.settled(ctx, v, pid)
}

// collections bring memory to where a process that does nothing comes by itself
// within minutes: Go collects every other minute at least, and each time makes
// stacks that are hardly used half as large.
const collections = 4

// settled is the memory of a process after that.
func (c Crowd) settled(ctx context.Context, v venue, pid int) (int64, error) {
	for range collections {
		if err := v.collect(ctx); err != nil {
			return 0, err
		}
		if err := waitUntil(ctx, time.Now().Add(c.Settle/collections)); err != nil {
			return 0, err
		}
	}
	return system.Resident(pid)
}

// arrival is how long the last events may take.
const arrival = 5 * time.Second

// deliver has events written, after a second of such that do not count, and
// demands that every one comes.
func (c Crowd) deliver(ctx context.Context, v venue, a *audience) (writes, delivery Result, err error) {
	runtime.GC() // and not among the events, where it would take the processors from the server
	for _, length := range []time.Duration{warmUp, c.Length} {
		a.forget()
		var sent int
		if sent, writes, err = v.emit(ctx, c.Rate, length); err != nil {
			return writes, delivery, err
		}
		for deadline := time.Now().Add(arrival); a.heard() < sent; {
			if time.Now().After(deadline) {
				return writes, delivery, fmt.Errorf("%d events were written, and %d came: %w", sent, a.heard(), a.lost())
			}
			if err := waitUntil(ctx, time.Now().Add(20*time.Millisecond)); err != nil {
				return writes, delivery, err
			}
		}
	}
	return writes, a.result(), a.lost()
}
