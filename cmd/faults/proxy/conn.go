package proxy

import (
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Conn is one connection through a proxy. It is safe for concurrent use.
type Conn struct {
	in net.Conn

	mu      sync.Mutex // never held while waiting
	out     net.Conn   // nil until dialled
	fault   Fault
	changed chan struct{} // closed when fault changes, or on done
	lost    bool          // the black hole took bytes of this connection
	done    bool
	random  *rand.Rand
}

func newConn(in net.Conn, f Fault, seed rand.Source) *Conn {
	return &Conn{in: in, fault: f, changed: make(chan struct{}), random: rand.New(seed)}
}

// Set puts a fault on this connection alone, until the next Set of the proxy.
func (c *Conn) Set(f Fault) {
	c.mu.Lock()
	c.fault = f
	end := f.Cut || c.lost && !f.BlackHole
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	if end {
		c.Reset()
	}
}

// Reset ends both sides with a reset.
func (c *Conn) Reset() {
	c.mu.Lock()
	c.done = true
	out := c.out
	close(c.changed) // whoever waits looks again
	c.changed = make(chan struct{})
	c.mu.Unlock()
	reset(c.in)
	if out != nil {
		reset(out)
	}
}

// now is the fault in force, a channel that closes when it changes, and
// whether the connection has ended.
func (c *Conn) now() (f Fault, changed <-chan struct{}, done bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fault, c.changed, c.done
}

// swallow notes that bytes have vanished.
func (c *Conn) swallow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost = true
}

// delay draws how long a piece is under way.
func (c *Conn) delay(f Fault) time.Duration {
	if f.Jitter <= 0 {
		return f.Latency
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(0, f.Latency-f.Jitter+time.Duration(c.random.Int64N(int64(2*f.Jitter)+1)))
}

// join carries bytes both ways until both have ended.
func (c *Conn) join(out net.Conn) {
	c.mu.Lock()
	c.out = out
	done := c.done
	c.mu.Unlock()
	if done { // reset while it was dialled
		reset(out)
		return
	}
	var both sync.WaitGroup
	both.Go(func() { c.carry(c.in, out) })
	both.Go(func() { c.carry(out, c.in) })
	both.Wait()
	_ = c.in.Close()
	_ = out.Close()
}

// reset closes a connection with RST where there is such a thing.
func reset(conn net.Conn) {
	if t, ok := conn.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = conn.Close()
}

// closeWrite tells the peer that no more comes; a connection that cannot be
// half closed is closed.
func closeWrite(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		return
	}
	_ = conn.Close()
}
