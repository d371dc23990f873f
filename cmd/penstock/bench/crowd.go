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
// makes its events itself or has them from elsewhere. The servers are processes of
// their own, and the streams are opened by this process. Sides are measured in
// turns, in two rounds of which the second goes backwards, so that a machine that
// becomes steadily slower or faster favours none.
type Crowd struct {
	Streams int           // opened anew for each server in each round
	Rate    float64       // events a second, each to a random stream
	Settle  time.Duration // from when the streams are open until memory is read
	Length  time.Duration // how long events come to a side, both rounds together
}

// rounds is how often each side is measured.
const rounds = 2

// CrowdSide is one server over one protocol whose events come in one way.
type CrowdSide struct {
	Protocol string
	PerHead  float64       // bytes of resident memory for each stream; the mean of the rounds
	Write    Result        // what it took to hand an event in; no calls where nobody does
	Delivery Result        // from the stamp, before that, until a client had the event
	CPU      time.Duration // of the server, while events came
}

// join adds the other of two rounds.
func (s *CrowdSide) join(o CrowdSide) {
	s.PerHead = (s.PerHead + o.PerHead) / rounds
	s.Write.join(o.Write)
	s.Delivery.join(o.Delivery)
	s.CPU += o.CPU
}

// CrowdSides are the sides over one protocol: our server, and a bare one that on
// the same streams makes the events of Bare itself, has those of Told from another
// process over HTTP, and those of Fed from Redis.
type CrowdSides struct{ Ours, Bare, Told, Fed CrowdSide }

// join adds the other of two rounds.
func (s *CrowdSides) join(o CrowdSides) {
	s.Ours.join(o.Ours)
	s.Bare.join(o.Bare)
	s.Told.join(o.Told)
	s.Fed.join(o.Fed)
}

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
	// pid is its process.
	pid() int
	// where is the URL of each of n streams.
	where(n int) []string
	// collect has the process collect its garbage, once.
	collect(ctx context.Context) error
	// begin is called once the memory was read.
	begin(ctx context.Context) error
}

// act is a way in which events come to a crowd, and the side that it measures.
type act struct {
	side *CrowdSide
	// emit has events of a rate written for a length, and says how many there were
	// and how long the writes took, if the server does not write them itself.
	emit func(ctx context.Context, rate float64, length time.Duration) (sent int, writes Result, err error)
}

// hold opens the crowd at one server, and has one act after another on the same
// streams.
func (c Crowd) hold(ctx context.Context, v venue, protocol string, acts ...act) error {
	before, err := c.empty(ctx, v, protocol)
	if err != nil {
		return err
	}
	a := newAudience(protocol)
	defer a.close()
	if err := a.open(ctx, v.where(c.Streams)); err != nil {
		return err
	}
	after, err := c.settled(ctx, v)
	if err != nil {
		return err
	}
	if err := v.begin(ctx); err != nil {
		return err
	}
	for _, act := range acts {
		*act.side = CrowdSide{Protocol: protocol, PerHead: float64(after-before) / float64(c.Streams)}
		if err := c.perform(ctx, v, a, act); err != nil {
			return err
		}
	}
	return nil
}

// perform has one act, after a second of it that does not count.
func (c Crowd) perform(ctx context.Context, v venue, a *audience, act act) (err error) {
	if err := v.collect(ctx); err != nil { // what came before is no event's of this act
		return err
	}
	runtime.GC() // and not among the events, where it would take the processors from the server
	if _, _, err := c.deliver(ctx, a, act, warmUp); err != nil {
		return err
	}
	m, err := startMeter([]Part{{"server", v.pid()}})
	if err != nil {
		return err
	}
	if act.side.Write, act.side.Delivery, err = c.deliver(ctx, a, act, c.Length/rounds); err != nil {
		return err
	}
	used, err := m.stop()
	if err != nil {
		return err
	}
	act.side.CPU = used[0]
	return nil
}

// empty is the memory of a process that has held some streams, and does not any
// more: what it keeps for itself then, such as its connections to Redis, is no
// stream's.
func (c Crowd) empty(ctx context.Context, v venue, protocol string) (int64, error) {
	a := newAudience(protocol)
	err := a.open(ctx, v.where(min(2*doors, c.Streams)))
	a.close()
	if err != nil {
		return 0, err
	}
	return c.settled(ctx, v)
}

// collections bring memory to where a process that does nothing comes by itself
// within minutes: Go collects every other minute at least, and each time makes
// stacks that are hardly used half as large.
const collections = 4

// settled is the memory of a process after that.
func (c Crowd) settled(ctx context.Context, v venue) (int64, error) {
	for range collections {
		if err := v.collect(ctx); err != nil {
			return 0, err
		}
		if err := waitUntil(ctx, time.Now().Add(c.Settle/collections)); err != nil {
			return 0, err
		}
	}
	return system.Resident(v.pid())
}

// arrival is how long the last events may take.
const arrival = 5 * time.Second

// deliver has events of an act written for a length, and demands that every one
// comes.
func (c Crowd) deliver(ctx context.Context, a *audience, act act, length time.Duration) (writes, delivery Result, err error) {
	a.forget()
	sent, writes, err := act.emit(ctx, c.Rate, length)
	if err != nil {
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
	return writes, a.result(), a.lost()
}
