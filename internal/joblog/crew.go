package joblog

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Offer is a job that waits for an owner.
type Offer struct {
	Job   string
	Epoch int // to claim it with
}

// Crew claims jobs without a living owner and runs those it was granted.
type Crew struct {
	Ready <-chan struct{} // closed once the log is read: nothing is claimed before
	Lease time.Duration   // silence after which a job has lost its owner
	Slots int             // jobs run at a time; further ones wait, or another process claims them
	Mark  *Mark           // of the fold that the functions below ask
	Log   *slog.Logger

	// Offers returns the jobs without a living owner, those to be run first first.
	Offers func(now time.Time) []Offer
	// Claim writes the claim and returns its offset.
	Claim func(ctx context.Context, o Offer) (int64, error)
	// Granted returns what to run if the claim won, else nil. It is asked once the
	// claim is folded.
	Granted func(o Offer) func(context.Context)
}

// claimWait bounds how long a claim is waited for in the log.
const claimWait = 5 * time.Second

// Run works until ctx ends and its jobs have returned.
func (c *Crew) Run(ctx context.Context) {
	select {
	case <-c.Ready:
	case <-ctx.Done():
		return
	}
	var running sync.WaitGroup
	defer running.Wait()
	slots := make(chan struct{}, c.Slots)
	tick := time.NewTicker(max(c.Lease/10, time.Millisecond))
	defer tick.Stop()
	for {
		changed := c.Mark.Changed()
		if c.claimAll(ctx, &running, slots) {
			changed = nil // a claim failed: not again before the tick
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// claimAll tries to claim every job on offer while there are slots. It reports
// whether a claim could not be written.
func (c *Crew) claimAll(ctx context.Context, running *sync.WaitGroup, slots chan struct{}) (failed bool) {
	for _, o := range c.Offers(time.Now()) {
		select {
		case slots <- struct{}{}:
		default:
			return failed
		}
		work, err := c.claim(ctx, o)
		if err != nil && ctx.Err() == nil {
			failed = true
			c.Log.Warn("job not claimed, trying again", "job", o.Job, "err", err)
		}
		if work == nil {
			<-slots
			continue
		}
		running.Go(func() {
			defer func() { <-slots }()
			work(ctx)
		})
	}
	return failed
}

func (c *Crew) claim(ctx context.Context, o Offer) (func(context.Context), error) {
	ctx, cancel := context.WithTimeout(ctx, claimWait)
	defer cancel()
	at, err := c.Claim(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := c.Mark.Await(ctx, at); err != nil {
		return nil, fmt.Errorf("read back claim of job %s: %w", o.Job, err)
	}
	return c.Granted(o), nil
}
