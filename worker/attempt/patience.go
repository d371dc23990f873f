package attempt

import (
	"errors"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/eventlog"
)

const (
	// patient is how many calls in a row may fail until the store is taken to be
	// away: one that is late says little.
	patient = 2
	// lookAgain is how long batches do not ask a store that is away; then one
	// does, and the others go on without.
	lookAgain = time.Second
)

// patience keeps batches from waiting, each anew, for a store that does not
// answer. What they would have asked for is a hint (has the task ended, who
// runs it) or tokens; work goes on without either.
type patience struct {
	mu     sync.Mutex
	failed int       // in a row
	next   time.Time // when one may ask again, once the store is away
}

// ask reports whether the store may be asked now. Whoever gets true says by
// heard what came of it.
func (p *patience) ask() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed < patient {
		return true
	}
	now := time.Now()
	if now.Before(p.next) {
		return false
	}
	p.next = now.Add(lookAgain)
	return true
}

func (p *patience) heard(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.failed = 0
		return
	}
	p.failed++
	p.next = time.Now().Add(lookAgain)
}

// errAway stands for the answer of a store that was not asked.
var errAway = errors.New("the store is away")

// faultOf is the first fault of the store among its answers.
func faultOf(grants []eventlog.Grant) error {
	for _, g := range grants {
		if outcomeOf(g.Err) == "error" {
			return g.Err
		}
	}
	return nil
}
