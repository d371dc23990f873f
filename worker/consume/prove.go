package consume

import (
	"context"
	"errors"
	"fmt"
)

// ErrNotOwned is returned by ProveOwned when the partition was taken away.
var ErrNotOwned = errors.New("partition is not ours any more")

// proof is one commit that somebody waits for. Who asks while it is on its way
// gets the next one: an answer proves only what was true after the question.
type proof struct {
	owners map[*owner]bool // that must be in the commit
	done   chan struct{}   // closed when err holds
	err    error
}

// of tells whether the owner's partition is asked for.
func (p *proof) of(o *owner) bool { return p != nil && p.owners[o] }

// answer ends the wait. A nil proof is nobody's.
func (p *proof) answer(err error) {
	if p == nil {
		return
	}
	p.err = err
	close(p.done)
}

// ask joins whoever waits for the next commit.
func (g *Group) ask(o *owner) *proof {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.asked == nil {
		g.asked = &proof{owners: map[*owner]bool{}, done: make(chan struct{})}
	}
	g.asked.owners[o] = true
	select {
	case g.nudge <- struct{}{}:
	default: // one wish is enough
	}
	return g.asked
}

// prove has the broker say that d's partition is still this member's.
func (g *Group) prove(ctx context.Context, d *Delivery) error {
	if (holder{g}).Revoked(d) {
		return ErrNotOwned
	}
	p := g.ask(d.owner)
	select {
	case <-p.done:
	case <-ctx.Done():
		return fmt.Errorf("prove ownership: %w", context.Cause(ctx))
	}
	if (holder{g}).Revoked(d) { // also why the commit may have left it out
		return ErrNotOwned
	}
	if p.err != nil {
		return fmt.Errorf("prove ownership: %w", p.err)
	}
	return nil
}
