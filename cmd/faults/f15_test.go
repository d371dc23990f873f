//go:build faults

package faults_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/penstock/penstock/cmd/faults/ledger"
	"github.com/penstock/penstock/cmd/faults/report"
	"github.com/penstock/penstock/cmd/system"
)

// TestF15 takes every backend away for a minute: nobody listens at their
// address. (Five minutes are simulated:
// TestFiveMinutesWithoutABackend of worker/dispatch.)
func TestF15(t *testing.T) {
	t.Parallel()
	const down, openWithin, share = time.Minute, 5 * time.Second, 0.9
	r := openRig(t, rigParams{Direct: true, Tenants: tenants(), System: system.Params{
		Workers: 2, Simulate: []string{"--base", "150ms", "--item", "10ms", "--max", "16"},
	}})
	tr := r.try(t, ledger.Load{Name: "f15", Tasks: 1500, Streamed: 0.02, Seed: 15}, 0)
	tr.submitted(t)
	base := r.rate(t, 10*time.Second)

	must(t, r.Simulators[0].Kill9())
	killed := time.Now()
	breakers := func(state float64) func() bool {
		return func() bool {
			return r.scrape(t, r.Workers[0], "penstock_worker_breaker_state") == state &&
				r.scrape(t, r.Workers[1], "penstock_worker_breaker_state") == state
		}
	}
	opened, open := eventually(t, 30*time.Second, breakers(2))
	probesSince, before := time.Now(), r.picks(t)
	pause(t, down-time.Since(killed))
	probes := (r.picks(t) - before) / time.Since(probesSince).Seconds() / float64(len(r.Workers))
	must(t, r.Simulators[0].Restart(t.Context()))
	ended := r.completed(t)
	resumed := until(t, time.Minute, "tasks end again", func() bool { return r.completed(t) > ended })
	closed := resumed + until(t, time.Minute, "all workers take part again", breakers(0))
	after := r.rate(t, 10*time.Second)
	v := tr.verdict(t, 3*time.Minute)
	report.Row(t, report.Result{
		Fault: "F15", What: "all backends are down for 60 s",
		Target: "dead letters +0; breaker open <= 5 s; probes <= 1/s each; drain at >= 90 % of the capacity",
		Measured: fmt.Sprintf("dead letters +%d; breakers open after %s (%v); %.2f probes/s each; tasks end again after %s, all workers take part after %s; %.0f/s before, %.0f/s (%.0f %%) after",
			v.Dead, seconds(opened), open, probes, seconds(resumed), seconds(closed), base, after, 100*after/base),
		OK:     v.Dead == 0 && open && opened <= openWithin && probes <= 1.05 && after >= share*base && len(v.WrongFate) == 0,
		Broken: v.Broken(), Took: time.Since(tr.began),
	})
}

// picks counts the calls that the workers began.
func (r *rig) picks(t *testing.T) float64 {
	t.Helper()
	sum := 0.0
	for _, p := range r.Workers {
		sum += r.scrape(t, p, "penstock_worker_backend_picks_total")
	}
	return sum
}
