package sim_test

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// weather is what befalls the connections of one instance to one server, in
// every life of the instance. The zero value is fair.
type weather struct {
	mu    sync.Mutex
	down  bool          // dials are refused
	calm  chan struct{} // not nil: nothing passes until it is closed
	usual time.Duration // delay in fair weather: without one, no two messages would ever cross
	delay time.Duration // of everything that is read, besides
}

func (w *weather) refuse(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = on
}

func (w *weather) stall(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case on && w.calm == nil:
		w.calm = make(chan struct{})
	case !on && w.calm != nil:
		close(w.calm)
		w.calm = nil
	}
}

func (w *weather) slow(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.delay = d
}

func (w *weather) now() (down bool, calm chan struct{}, delay time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.down, w.calm, w.usual + w.delay
}

type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// link is the connections of one life of an instance to one server. Cut for
// good, they are what a killed process leaves behind.
type link struct {
	weather *weather

	mu    sync.Mutex
	dead  bool
	conns map[*conn]bool
}

var errUnplugged = errors.New("unplugged")

func (l *link) over(dial dialer) dialer {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		// A stalled dial fails at once: clients dial under locks, and a bubble's
		// clock stands still as long as somebody waits for a lock.
		if down, calm, _ := l.weather.now(); down || calm != nil {
			return nil, errUnplugged
		}
		inner, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		c := newConn(inner, l)
		if !l.add(c) {
			return nil, errors.Join(errUnplugged, c.Close())
		}
		return c, nil
	}
}

func (l *link) add(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return false
	}
	if l.conns == nil {
		l.conns = map[*conn]bool{}
	}
	l.conns[c] = true
	return true
}

// reset breaks what is open; new connections may follow.
func (l *link) reset() {
	for _, c := range l.take(false) {
		_ = c.Close()
	}
}

// kill is reset for good.
func (l *link) kill() {
	for _, c := range l.take(true) {
		_ = c.Close()
	}
}

func (l *link) take(dead bool) (open []*conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = l.dead || dead
	for c := range l.conns {
		open = append(open, c)
	}
	l.conns = nil
	return open
}

// conn is one connection under its link's weather. As on a real network there
// are buffers: nobody waits for the other side to read. Servers write, and
// clients dial and write, under locks.
type conn struct {
	net.Conn
	link    *link
	since   time.Time
	once    sync.Once
	closed  chan struct{}
	pumps   sync.WaitGroup
	sends   chan struct{} // holds one wish to send
	arrived chan struct{} // holds one notice for Read

	mu       sync.Mutex
	out, in  []byte
	err      error     // of receiving
	deadline time.Time // of the next Read
}

func newConn(inner net.Conn, l *link) *conn {
	c := &conn{
		Conn: inner, link: l, since: time.Now(), closed: make(chan struct{}),
		sends: make(chan struct{}, 1), arrived: make(chan struct{}, 1),
	}
	c.pumps.Go(c.send)
	c.pumps.Go(c.receive)
	return c
}

func (c *conn) Close() error {
	c.once.Do(func() { close(c.closed) })
	err := c.Conn.Close()
	c.pumps.Wait()
	return err
}

func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

func (c *conn) SetWriteDeadline(time.Time) error { return nil }

func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return nil
}

func (c *conn) receive() {
	b := make([]byte, 32<<10)
	for {
		n, err := c.Conn.Read(b)
		c.mu.Lock()
		c.in, c.err = append(c.in, b[:n]...), err
		c.mu.Unlock()
		signal(c.arrived)
		if err != nil {
			return
		}
	}
}

// Read holds back what came in bad weather. What a new connection says first
// is not held back: clients wait for it under locks.
func (c *conn) Read(b []byte) (int, error) {
	var late <-chan time.Time
	c.mu.Lock()
	deadline := c.deadline
	c.mu.Unlock()
	if !deadline.IsZero() {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		late = timer.C
	}
	if err := c.await(late); err != nil {
		return 0, err
	}
	if !time.Now().Equal(c.since) {
		if err := c.hold(late); err != nil {
			return 0, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := copy(b, c.in)
	c.in = c.in[n:]
	return n, nil
}

// await waits for something to read.
func (c *conn) await(late <-chan time.Time) error {
	for {
		c.mu.Lock()
		some, err := len(c.in) > 0, c.err
		c.mu.Unlock()
		if some {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-c.arrived:
		case <-late:
			return os.ErrDeadlineExceeded
		case <-c.closed:
			return net.ErrClosed
		}
	}
}

// hold waits for the weather.
func (c *conn) hold(late <-chan time.Time) error {
	_, calm, delay := c.link.weather.now()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-c.closed:
			return net.ErrClosed
		}
	}
	if calm == nil {
		return nil
	}
	select {
	case <-calm:
		return nil
	case <-late:
		return os.ErrDeadlineExceeded
	case <-c.closed:
		return net.ErrClosed
	}
}

func (c *conn) Write(b []byte) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
	}
	c.mu.Lock()
	c.out = append(c.out, b...)
	c.mu.Unlock()
	signal(c.sends)
	return len(b), nil
}

// send moves what was written to the other side, in fair weather.
func (c *conn) send() {
	for {
		select {
		case <-c.sends:
		case <-c.closed:
			return
		}
		if _, calm, _ := c.link.weather.now(); calm != nil {
			select {
			case <-calm:
			case <-c.closed:
				return
			}
		}
		c.mu.Lock()
		batch := c.out
		c.out = nil
		c.mu.Unlock()
		if _, err := c.Conn.Write(batch); err != nil {
			_ = c.Conn.Close() // who reads is told
			return
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // one is enough
	}
}
