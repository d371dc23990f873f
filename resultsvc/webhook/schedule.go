package webhook

import (
	"math/rand/v2"
	"time"

	"github.com/penstock/penstock/schema/webhook"
)

// waits are the times between the end of an attempt that failed and the next:
// the schedule of Standard Webhooks, over three days in all.
func waits() [webhook.MaxAttempts - 1]time.Duration {
	return [...]time.Duration{
		5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
		10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
	}
}

// jitter is by which share of itself a wait is longer or shorter, so that what
// failed together does not come back together.
const jitter = 0.1

// longest is the longest wait there is.
const longest = 24 * time.Hour

// wait is how long to wait after the n-th attempt failed; false if it was the
// last. chance is from 0 to 1. A receiver that asks for a longer wait gets it, up
// to the next one of the schedule: so no wish takes the attempts past the time
// for which the records of them are kept.
func wait(n int, chance float64, wish time.Duration) (time.Duration, bool) {
	all := waits()
	if n < 1 || n > len(all) {
		return 0, false
	}
	own, most := time.Duration(float64(all[n-1])*(1-jitter+2*jitter*chance)), longest
	if n < len(all) {
		most = all[n]
	}
	return max(own, min(wish, most)), true
}

func chance() float64 { return rand.Float64() }
