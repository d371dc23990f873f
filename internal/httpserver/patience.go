package httpserver

import (
	"net/http"
	"sync"
	"time"
)

// patience cuts the answers whose clients take too long over what is written to
// them. It watches all the writes of a server with one timer: a deadline for each
// would be two messages to the loop of an HTTP/2 connection for every event of
// every stream. The zero value is ready.
type patience struct {
	mu     sync.Mutex // guards what follows; held while an answer is cut, so that it is not over
	writes map[http.ResponseWriter]time.Time
	timer  *time.Timer
	next   time.Time // when it fires; zero: it does not
}

// begin says that a write must be over by then.
func (p *patience) begin(w http.ResponseWriter, by time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.writes == nil {
		p.writes = map[http.ResponseWriter]time.Time{}
	}
	p.writes[w] = by
	p.wait(by)
}

// end says that it is over. It reports whether the answer was cut.
func (p *patience) end(w http.ResponseWriter) (cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, there := p.writes[w]
	delete(p.writes, w)
	return !there
}

// wait has the timer fire by then; the caller holds the lock.
func (p *patience) wait(by time.Time) {
	if !p.next.IsZero() && !by.Before(p.next) {
		return
	}
	p.next = by
	if p.timer == nil {
		p.timer = time.AfterFunc(time.Until(by), p.look)
		return
	}
	p.timer.Reset(time.Until(by))
}

// look cuts what should be over. With nothing to wait for the timer rests.
func (p *patience) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = time.Time{}
	now := time.Now()
	for w, by := range p.writes {
		if by.After(now) {
			p.wait(by)
			continue
		}
		delete(p.writes, w)
		// A recorder in a test has no deadlines; a real connection always has.
		_ = http.NewResponseController(w).SetWriteDeadline(longAgo)
	}
}

// longAgo ends a write that is going on.
var longAgo = time.Unix(1, 0)
