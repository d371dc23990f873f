//go:build faults

package faults_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/penstock/penstock/cmd/faults/ledger"
	"github.com/penstock/penstock/cmd/faults/report"
	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/schema/task"
)

// session is how long a group waits for a member that says nothing.
const session = 10 * time.Second

// TestF9F10F11 wrongs workers: one is drained, one killed, one frozen beyond
// its session and woken again.
func TestF9F10F11(t *testing.T) {
	t.Parallel()
	r := openRig(t, rigParams{Direct: true, Tenants: tenants(), System: system.Params{
		Workers: 3, Results: 2, SimulatorEach: true,
		Simulate: []string{"--base", "60ms", "--item", "6ms", "--max", "16", "--token", "20ms"},
	}})
	t.Run("a worker is drained under load", r.f11)
	t.Run("a worker is killed in the middle of batches", r.f9)
	for n := range 3 {
		t.Run(fmt.Sprintf("a worker sleeps beyond its session, %d", n+1), r.f10)
	}
}

// f11 drains a worker that has work.
func (r *rig) f11(t *testing.T) {
	const limit = 30 * time.Second
	tr := r.try(t, ledger.Load{Name: "f11", Tasks: 2000, Streamed: 0.1, StreamTokens: 20, Seed: 11}, 0)
	victim := r.Workers[0]
	until(t, time.Minute, "a fifth has ended", func() bool { return r.endedOf(t, tr) >= 400 })
	asked := time.Now()
	err := victim.Term()
	exit := time.Since(asked)
	v := tr.verdict(t, 2*time.Minute)
	its := tr.mine(runs(t, r.Simulators[0]))
	_, again := tr.executed(t)
	must(t, victim.Restart(t.Context()))
	report.Row(t, report.Result{
		Fault: "F11", What: "SIGTERM of a worker under load", Target: "re-executed 0; exit <= 30 s",
		Measured: fmt.Sprintf("re-executed %d, exit after %s (%v); it had run %d of %d", again, seconds(exit), err, len(its), v.Accepted),
		OK:       err == nil && exit <= limit && again == 0 && len(its) > 0 && len(v.WrongFate) == 0,
		Broken:   v.Broken(), Took: time.Since(tr.began),
	})
}

// endedOf counts the load's tasks that are over, by the engines' logs.
func (r *rig) endedOf(t *testing.T, tr *trial) int {
	t.Helper()
	n, _ := tr.executed(t)
	return n
}

// f9 kills a worker in the middle of its batches.
func (r *rig) f9(t *testing.T) {
	const limit = session + 2*time.Second
	tr := r.try(t, ledger.Load{Name: "f9", Tasks: 2000, Streamed: 0.1, StreamTokens: 20, Seed: 9}, 0)
	until(t, time.Minute, "a fifth has begun", func() bool { return r.endedOf(t, tr) >= 400 })
	must(t, r.Workers[0].Kill9())
	killed, ends := time.Now(), r.ends(t)
	its := tr.mine(runs(t, r.Simulators[0]))
	takeover, taken := eventually(t, time.Minute, func() bool { return r.repeated(t, tr, its) > 0 })
	v := tr.verdict(t, 2*time.Minute)
	inFlight := 0
	for id := range its {
		if o := v.Log.Ends[task.ID(id)]; o == nil || len(o.Offsets) == 0 || o.Offsets[0] >= ends[o.Partition] {
			inFlight++
		}
	}
	again := r.repeated(t, tr, its)
	must(t, r.Workers[0].Restart(t.Context()))
	report.Row(t, report.Result{
		Fault: "F9", What: "kill -9 of a worker in the middle of batches", Target: "takeover <= session + 2 s = 12 s; re-executed <= in flight at the kill",
		Measured: fmt.Sprintf("takeover %s (%v), re-executed %d, in flight %d; it had begun %d of %d; %s in all",
			seconds(takeover), taken, again, inFlight, len(its), v.Accepted, seconds(time.Since(killed))),
		OK:     taken && takeover <= limit && again <= inFlight && len(its) > 0 && len(v.WrongFate) == 0,
		Broken: v.Broken(), Took: time.Since(tr.began),
	})
}

// repeated counts the tasks that ran at an engine and at another one too.
func (r *rig) repeated(t *testing.T, tr *trial, its map[string]int) int {
	t.Helper()
	n := 0
	for _, p := range r.Simulators[1:] {
		for id := range tr.mine(runs(t, p)) {
			if its[id] > 0 {
				n++
			}
		}
	}
	return n
}

// f10 freezes a worker until others have its partitions, and wakes it up while
// it holds answers and tokens of the time before.
func (r *rig) f10(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	tr := r.try(t, ledger.Load{Name: "f10", Tasks: 800, Streamed: 0.3, StreamTokens: 60, Seed: seed}, 80)
	zombie := r.Workers[0]
	until(t, time.Minute, "an eighth has begun", func() bool { return r.endedOf(t, tr) >= 100 })
	must(t, zombie.Stop())
	pause(t, session+3*time.Second)
	must(t, zombie.Cont())
	v := tr.verdict(t, 2*time.Minute)
	_, again := tr.executed(t)
	report.Row(t, report.Result{
		Fault: "F10", What: "SIGSTOP of a worker for 13 s, beyond its session, then SIGCONT", Seed: seed,
		Target: "zombie entries 0, zombie commits 0 after takeover",
		Measured: fmt.Sprintf("entries out of order %d, commits past unfinished work %d; re-executed %d, terminals that came second %d, of the zombie: %.0f tries fenced",
			broken(v, "I4"), broken(v, "I5"), again, v.Losers, r.scrape(t, zombie, "penstock_worker_streams_ended_total", `reason="fenced"`)),
		OK:     broken(v, "I4") == 0 && broken(v, "I5") == 0 && len(v.WrongFate) == 0,
		Broken: v.Broken(), Took: time.Since(tr.began),
	})
}

// broken counts what broke an invariant.
func broken(v outcome, invariant string) int {
	n := 0
	for _, f := range v.Findings {
		if f.Invariant == invariant {
			n++
		}
	}
	return n
}
