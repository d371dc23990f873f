// Package retry decides how long a failed task waits before its next try, and
// where it waits. It is pure: it reads no clock and writes nothing.
package retry

import (
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/penstock/penstock/schema/topic"
)

// Policy bounds the tries of a task.
type Policy struct {
	Tries         int           // counted attempts before the task is dead
	Base          time.Duration // the longest wait after the first
	Factor        float64       // by which it grows
	Cap           time.Duration // the longest wait of all
	MaxRetryAfter time.Duration // no hint of a backend is believed beyond this
}

// Default is 5 tries, with waits of up to 1, 2, 4 and 8 s between them.
func Default() Policy {
	return Policy{Tries: 5, Base: time.Second, Factor: 2, Cap: 8 * time.Second, MaxRetryAfter: 10 * time.Minute}
}

// Exhausted reports whether a task with so many counted attempts has no more.
func (p Policy) Exhausted(attempts int) bool { return attempts >= p.Tries }

// Wait returns the wait after the n-th failed attempt, counted from 1: uniform
// between nothing and the exponential bound ("full jitter", Brooker 2015), so
// that tasks which failed together do not come back together. A hint, what the
// other side asked for (Retry-After), is a floor.
func (p Policy) Wait(n int, hint time.Duration) time.Duration {
	// The library spreads ±r around its interval: half the bound with r = 1 is
	// uniform over [0, bound].
	b := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(p.Base/2),
		backoff.WithMaxInterval(p.Cap/2),
		backoff.WithMultiplier(p.Factor),
		backoff.WithRandomizationFactor(1),
		backoff.WithMaxElapsedTime(0),
	)
	var wait time.Duration
	for range max(n, 1) {
		wait = b.NextBackOff()
	}
	return max(min(wait, p.Cap), min(hint, p.MaxRetryAfter))
}

// Place says where a wait is spent: the tier's topic first, the rest in memory.
// Waits below the shortest tier stay in memory altogether: tier is nil.
func Place(wait time.Duration) (tier *topic.Tier, rest time.Duration) {
	t, ok := topic.TierFor(wait)
	if !ok {
		return nil, wait
	}
	return &t, wait - t.Delay
}
