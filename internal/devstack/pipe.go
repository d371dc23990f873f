package devstack

import (
	"net"
	"sync"
	"time"
)

// pipe is a connection inside the process whose writes never wait for the
// reader. net.Pipe has no buffer at all: a client that writes a pipeline of
// commands while the server writes its first answers would wait for ever.
type pipe struct {
	net.Conn
	done chan struct{} // closed once pump has ended

	mu     sync.Mutex
	more   *sync.Cond
	queue  []byte
	closed bool
	err    error // of the connection; ends every later write
}

func newPipe(c net.Conn) *pipe {
	p := &pipe{Conn: c, done: make(chan struct{})}
	p.more = sync.NewCond(&p.mu)
	go p.pump() // ends with Close, which awaits it
	return p
}

// Write queues b. What a client has not read of its own pipelines bounds the
// queue.
func (p *pipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, net.ErrClosed
	}
	if p.err != nil {
		return 0, p.err
	}
	p.queue = append(p.queue, b...)
	p.more.Signal()
	return len(b), nil
}

// pump moves the queue to the other side.
func (p *pipe) pump() {
	defer close(p.done)
	for {
		p.mu.Lock()
		for len(p.queue) == 0 && !p.closed {
			p.more.Wait()
		}
		batch := p.queue
		p.queue = nil
		closed := p.closed
		p.mu.Unlock()
		if closed {
			return
		}
		if _, err := p.Conn.Write(batch); err != nil {
			p.mu.Lock()
			p.err = err
			p.mu.Unlock()
			return
		}
	}
}

// Close drops what is queued.
func (p *pipe) Close() error {
	err := p.Conn.Close()
	p.mu.Lock()
	p.closed = true
	p.more.Signal()
	p.mu.Unlock()
	<-p.done
	return err
}

// SetDeadline sets the read deadline: a write never waits.
func (p *pipe) SetDeadline(t time.Time) error { return p.SetReadDeadline(t) }

// SetWriteDeadline does nothing: a write never waits.
func (p *pipe) SetWriteDeadline(time.Time) error { return nil }
