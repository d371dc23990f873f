package proxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// underWay is how many pieces may be between two sides. A full link takes no
// more from its sender, as a full socket does.
const underWay = 64

// piece is some bytes and the moment at which they arrive.
type piece struct {
	bytes []byte
	due   time.Time
}

// carry takes bytes from one side to the other until the first has ended and
// all its bytes have arrived, or the connection breaks.
func (c *Conn) carry(from, to net.Conn) {
	pieces := make(chan piece, underWay)
	broken := make(chan struct{}) // closed when nothing can arrive any more
	var whole error
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(pieces)
		whole = c.read(from, pieces, broken)
	})
	arrived := c.deliver(to, pieces)
	close(broken)
	if !arrived {
		c.Reset()
	}
	reader.Wait()
	c.close(to, whole)
}

// read sends on what comes, each piece with its delay. The end of the stream is
// no error.
func (c *Conn) read(from net.Conn, pieces chan<- piece, broken <-chan struct{}) error {
	var last time.Time
	for {
		f, _, _ := c.now()
		buf := make([]byte, f.piece())
		n, err := from.Read(buf)
		if n > 0 {
			f, _, _ = c.now()
			if due := time.Now().Add(c.delay(f)); due.After(last) { // order is kept
				last = due
			}
			select {
			case pieces <- piece{buf[:n], last}:
			case <-broken:
				return net.ErrClosed
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// deliver writes each piece when it is due. False: the connection has broken.
func (c *Conn) deliver(to net.Conn, pieces <-chan piece) bool {
	var free time.Time // when the link can take the next byte
	for p := range pieces {
		if !c.until(p.due) {
			return false
		}
		for rest := p.bytes; len(rest) > 0; {
			f, ok := c.pass(&free)
			if !ok {
				return false
			}
			if f.BlackHole {
				c.swallow()
				break
			}
			n := min(len(rest), f.piece())
			if _, err := to.Write(rest[:n]); err != nil {
				return false
			}
			free = free.Add(f.cost(n))
			rest = rest[n:]
		}
	}
	return true
}

// pass waits until the link may carry something, and returns the fault under
// which it does. False: the connection has ended.
func (c *Conn) pass(free *time.Time) (Fault, bool) {
	for {
		f, changed, done := c.now()
		switch {
		case done:
			return f, false
		case f.BlackHole:
			return f, true
		case f.Hold:
			<-changed
			continue
		case f.Bandwidth <= 0:
			*free = time.Now()
			return f, true
		}
		if wait := time.Until(*free); wait <= 0 {
			*free = time.Now()
			return f, true
		} else if !pause(wait, changed) {
			*free = time.Time{} // another fault, other costs
		}
	}
}

// until waits for a moment. A change of the fault ends the delay, as the
// bytes of a healed link do not stay behind. False: the connection has ended.
func (c *Conn) until(due time.Time) bool {
	for {
		f, changed, done := c.now()
		wait := time.Until(due)
		if done || wait <= 0 || f.Latency == 0 {
			return !done
		}
		_ = pause(wait, changed)
	}
}

// close tells the other side how the first has ended: in order, perhaps late,
// or by a reset.
func (c *Conn) close(to net.Conn, err error) {
	if err != nil {
		c.Reset()
		return
	}
	f, changed, done := c.now()
	for wait := f.SlowClose; !done && (wait > 0 || f.Hold || f.BlackHole); f, changed, done = c.now() {
		if f.Hold || f.BlackHole {
			<-changed // a lost network tells nobody
			continue
		}
		since := time.Now()
		_ = pause(wait, changed)
		wait = min(wait-time.Since(since), f.SlowClose)
	}
	closeWrite(to)
}

// pause waits; false when the fault has changed meanwhile.
func pause(d time.Duration, changed <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-changed:
		return false
	}
}
