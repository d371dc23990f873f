package redrive

import (
	"context"
	"time"

	"golang.org/x/time/rate"

	"github.com/penstock/penstock/internal/lifecycle"
)

const (
	// catchUp is how much faster than its rate a job goes while it makes good
	// what it lost to a slow broker or a late timer.
	catchUp = 1.05
	// maxDebt is how much lost time is made good; the rest is forgotten.
	maxDebt = 2 * time.Second
)

// pacer says when the next letter may start. Letters are due on a schedule
// rather than some time after each other, so that what is lost between two of
// them does not lower the rate. It belongs to one goroutine.
type pacer struct {
	rate  float64
	ramp  time.Duration // over which the rate rises from a tenth to the whole
	began time.Time
	due   time.Time     // of the next letter
	most  *rate.Limiter // bounds the speed of making good
}

func newPacer(perSecond float64, ramp time.Duration) *pacer {
	return &pacer{
		rate: perSecond, ramp: ramp,
		most: rate.NewLimiter(rate.Limit(catchUp*perSecond), max(1, int(perSecond/20))),
	}
}

// wait returns when the next letter may start, or with an error once ctx is
// done.
func (p *pacer) wait(ctx context.Context) error {
	now := time.Now()
	if p.due.IsZero() {
		p.began, p.due = now, now
	}
	if behind := now.Sub(p.due); behind > maxDebt {
		p.due = now.Add(-maxDebt)
	} else if behind < 0 && !lifecycle.Pause(ctx, -behind) {
		return context.Cause(ctx)
	}
	if err := p.most.Wait(ctx); err != nil {
		return err
	}
	p.due = p.due.Add(time.Duration(float64(time.Second) / p.now()))
	return nil
}

// now is the rate at the time of the next letter. A job of a few letters must
// not take minutes, so it begins with one a second at least.
func (p *pacer) now() float64 {
	passed := p.due.Sub(p.began)
	if passed >= p.ramp {
		return p.rate
	}
	share := 0.1 + 0.9*float64(passed)/float64(p.ramp)
	return max(share*p.rate, min(p.rate, 1))
}
