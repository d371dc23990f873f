// Package proxy stands between two parts of the system and does to their
// connections what networks do: delay, throttle, reset, swallow, hold, close
// late, cut. Faults change while connections are open.
//
// It is made for tests on one machine: it speaks TCP, knows no protocol, and
// keeps at most a megabyte per connection and direction.
package proxy

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// dialTimeout bounds the way to the target.
const dialTimeout = 5 * time.Second

// DialFunc opens a connection to what the proxy stands in front of.
type DialFunc func(ctx context.Context) (net.Conn, error)

// Proxy passes connections on to one target. It is safe for concurrent use.
type Proxy struct {
	ln   net.Listener
	seed uint64

	mu    sync.Mutex // never held while waiting
	dial  DialFunc
	fault Fault
	conns map[*Conn]struct{}
	count uint64 // connections so far: each draws its own jitter
	shut  bool

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Listen opens a proxy on a free port of this machine. The target may be given
// later, see Target; until then connections are reset. The seed decides the
// jitter.
func Listen(target string, seed uint64) (*Proxy, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for a proxy: %w", err)
	}
	p := New(ln, nil, seed)
	p.Target(target)
	return p, nil
}

// New serves a listener, which it owns from now on. Close ends it.
func New(ln net.Listener, dial DialFunc, seed uint64) *Proxy {
	p := &Proxy{ln: ln, seed: seed, dial: dial, conns: map[*Conn]struct{}{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.wg.Go(p.accept)
	return p
}

// Addr is where the proxy listens, host:port.
func (p *Proxy) Addr() string { return p.ln.Addr().String() }

// Target sets where new connections go, host:port. Empty: nowhere.
func (p *Proxy) Target(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dial = nil
	if target != "" {
		p.dial = func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", target)
		}
	}
}

// Set puts a fault on every connection, open ones and those to come, in place
// of whatever was set before.
func (p *Proxy) Set(f Fault) {
	for _, c := range p.set(f) {
		c.Set(f)
	}
}

func (p *Proxy) set(f Fault) []*Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
	return p.open()
}

// Heal lets everything pass again.
func (p *Proxy) Heal() { p.Set(Fault{}) }

// Reset ends every open connection with a reset, as a crashed peer or an
// impatient firewall does. New ones pass.
func (p *Proxy) Reset() {
	for _, c := range p.Conns() {
		c.Reset()
	}
}

// Conns are the open connections.
func (p *Proxy) Conns() []*Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open()
}

func (p *Proxy) open() []*Conn {
	out := make([]*Conn, 0, len(p.conns))
	for c := range p.conns {
		out = append(out, c)
	}
	return out
}

// Close ends the proxy and every connection, and waits for its goroutines.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.shut = true
	p.mu.Unlock()
	p.cancel()
	err := p.ln.Close()
	p.Reset()
	p.wg.Wait()
	return err
}

func (p *Proxy) accept() {
	for {
		in, err := p.ln.Accept()
		if err != nil {
			return // closed
		}
		p.wg.Go(func() { p.carry(in) })
	}
}

// carry joins a connection with its target until both sides have ended.
func (p *Proxy) carry(in net.Conn) {
	c, dial := p.admit(in)
	if c == nil {
		reset(in)
		return
	}
	defer p.forget(c)
	out, err := dial(p.ctx)
	if err != nil {
		reset(in)
		return
	}
	c.join(out)
}

// admit remembers a connection, or returns nil when none may pass.
func (p *Proxy) admit(in net.Conn) (*Conn, DialFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shut || p.dial == nil || p.fault.Cut {
		return nil, nil
	}
	p.count++
	c := newConn(in, p.fault, rand.NewPCG(p.seed, p.count))
	p.conns[c] = struct{}{}
	return c, p.dial
}

func (p *Proxy) forget(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}
