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

// TestF12 lets a worker join and leave every two seconds for a minute, beside
// two that stay. One engine serves all three and is the bottleneck.
func TestF12(t *testing.T) {
	t.Parallel()
	const (
		every, storm = 2 * time.Second, time.Minute
		share, waste = 0.5, 0.01
	)
	r := openRig(t, rigParams{Direct: true, Tenants: tenants(), System: system.Params{
		Workers: 3, Simulate: []string{"--base", "150ms", "--item", "10ms", "--max", "16"},
	}})
	tr := r.try(t, ledger.Load{Name: "f12", Tasks: 3800, Streamed: 0.02, Seed: 12}, 0)
	tr.submitted(t)
	base := r.rate(t, 8*time.Second)

	guest, began, before, moves := r.Workers[2], time.Now(), r.completed(t), 0
	for present := true; time.Since(began) < storm; present = !present {
		since := time.Now()
		if present {
			must(t, guest.Term())
		} else {
			must(t, guest.Restart(t.Context()))
		}
		moves++
		if left := every - time.Since(since); left > 0 {
			pause(t, left)
		}
	}
	stormy := float64(r.completed(t)-before) / time.Since(began).Seconds()
	ran, again := tr.executed(t)
	v := tr.verdict(t, 3*time.Minute)
	report.Row(t, report.Result{
		Fault: "F12", What: fmt.Sprintf("a member joins or leaves every %s for %s, %d moves", every, storm, moves),
		Target: "throughput >= 50 % of the calm; re-executed <= 1 %",
		Measured: fmt.Sprintf("%.0f/s calm, %.0f/s in the storm (%.0f %%); re-executed %d of %d (%.2f %%)",
			base, stormy, 100*stormy/base, again, ran, 100*float64(again)/float64(max(1, ran))),
		OK:     stormy >= share*base && float64(again) <= waste*float64(ran) && len(v.WrongFate) == 0,
		Broken: v.Broken(), Took: time.Since(tr.began),
	})
}
