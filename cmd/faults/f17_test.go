//go:build faults

package faults_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/penstock/penstock/cmd/faults/ledger"
	"github.com/penstock/penstock/cmd/faults/report"
	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend/simulated"
)

// openF17 gives each worker an engine of its own, which tells on whom a killer was
// let loose.
func openF17(t *testing.T) *rig {
	return openRig(t, rigParams{Direct: true, Tenants: tenants(), System: system.Params{
		Workers: 3, SimulatorEach: true, Simulate: []string{"--base", "30ms", "--item", "3ms", "--max", "16"},
	}})
}

// TestF17 has one task in a hundred that no backend can do. It compares the time that
// the others take, so nothing else may run.
func TestF17(t *testing.T) {
	const share = 1.5
	r := openF17(t)
	load := ledger.Load{Name: "f17-calm", Tasks: 900, Streamed: 0.05, Seed: 17}
	tr := r.try(t, load, 60)
	v := tr.verdict(t, time.Minute)
	calm := quantile(tr.latencies(v.Log), 0.99)

	r.fault(t, map[string]any{"match": "poison", "status": 500})
	load.Name, load.Marked, load.Marks = "f17-sick", 0.01, []ledger.Mark{{Word: "poison", Fate: task.Dead}}
	tr = r.try(t, load, 60)
	v = tr.verdict(t, 2*time.Minute)
	poison, wrong := r.census(tr, v.Log)
	p99 := quantile(tr.latencies(v.Log), 0.99)
	report.Row(t, report.Result{
		Fault: "F17", What: "1 % poison", Target: "dead letters = the poison exactly; healthy p99 <= 1.5x",
		Measured: fmt.Sprintf("%d poison, %d dead, %d others dead; healthy p99 %s without, %s with (%.2fx)",
			poison, v.Dead, wrong, calm.Round(time.Millisecond), p99.Round(time.Millisecond), p99.Seconds()/calm.Seconds()),
		OK:     v.Dead == poison && wrong == 0 && len(v.WrongFate) == 0 && p99.Seconds() <= share*calm.Seconds(),
		Broken: v.Broken(), Took: time.Since(tr.began),
	})
}

// TestF17Killers has a task that kills whoever runs it, and then all workers killed
// together.
func TestF17Killers(t *testing.T) {
	t.Parallel()
	r := openF17(t)
	t.Run("one kills its workers", func(t *testing.T) { r.killer(t) })
	t.Run("all workers are killed twice with their hands full", r.massacre)
}

// massacre kills every worker while everything it has is running, twice. What
// was lost twice is published again with its count, hundreds of records at once,
// and read while their acknowledgements are on the way: each must still run.
func (r *rig) massacre(t *testing.T) {
	r.fault(t, map[string]any{"match": "f17-lost task", "action": "hang"})
	tr := r.try(t, ledger.Load{Name: "f17-lost", Tasks: 360, Streamed: 0.05, Seed: 17}, 0)
	tr.submitted(t)
	for _, clear := range []func(*testing.T){func(*testing.T) {}, r.clear} {
		pause(t, 5*time.Second) // what the dead had is claimed, and hangs
		for _, p := range r.Workers {
			must(t, p.Kill9())
		}
		clear(t)
		for _, p := range r.Workers {
			must(t, p.Restart(t.Context())) // it is ready once the dead are missed
		}
	}
	v := tr.verdict(t, 2*time.Minute)
	twice := 0
	for _, id := range tr.book.Accepted() {
		if len(v.Log.Tasks[id]) > 1 {
			twice++
		}
	}
	report.Row(t, report.Result{
		Fault: "F17", What: "kill -9 of all workers, twice, with everything in flight", Target: "each task ends; nothing dies of two losses",
		Measured: fmt.Sprintf("%d of %d as expected; %d were lost twice and published again", v.Accepted-len(v.WrongFate), v.Accepted, twice),
		OK:       len(v.WrongFate) == 0 && twice > 0, Broken: v.Broken(), Took: time.Since(tr.began),
	})
}

// census counts the marked tasks, and the unmarked ones with a dead letter.
func (r *rig) census(tr *trial, log *ledger.Log) (marked, wrong int) {
	dead := log.Census()
	for _, e := range tr.book.Entries() {
		switch {
		case e.Mark != "":
			marked++
		case dead[e.ID] > 0:
			wrong++
		}
	}
	return marked, wrong
}

// killer submits one task that kills, among others: whoever hands it to an
// engine is killed at once, and started again.
func (r *rig) killer(t *testing.T) {
	const most = 3
	r.fault(t, map[string]any{"match": "killer", "action": "hang"})
	tr := r.try(t, ledger.Load{Name: "f17", Tasks: 900, Seed: 17}, 30)
	deadly := r.beside(t, ledger.Load{Name: "f17-last", Tasks: 1, Marked: 1, Marks: []ledger.Mark{{Word: "killer", Fate: task.Dead}}}, 0)
	deadly.submitted(t)
	hits, kills := make([]int, len(r.Workers)), 0
	took, over := eventually(t, 4*time.Minute, func() bool {
		for i, p := range r.Simulators {
			if n := r.hits(t, p); n > hits[i] && kills < 2*most {
				hits[i] = n
				kills++
				must(t, r.Workers[i].Kill9())
				must(t, r.Workers[i].Restart(t.Context()))
			}
		}
		return deadly.ended() == 1
	})
	v := deadly.verdict(t, time.Minute)
	w := tr.verdict(t, 2*time.Minute)
	disposition := deadletter.Disposition("none")
	for _, l := range w.Log.Letters {
		if l.TaskID == deadly.book.Accepted()[0] {
			disposition = l.Disposition
		}
	}
	r.clear(t)
	report.Row(t, report.Result{
		Fault: "F17", What: "a task that kills its worker, among healthy ones", Target: "isolated after <= 3 crashes, dead letter as suspected_killer; nothing else dies",
		Measured: fmt.Sprintf("%d crashes, dead letter %s after %s (%v); healthy: %d of %d as expected", kills, disposition, seconds(took), over,
			w.Accepted-len(w.WrongFate), w.Accepted),
		OK:     over && kills <= most && disposition == deadletter.SuspectedKiller && len(w.WrongFate)+len(v.WrongFate) == 0,
		Broken: append(v.Broken(), w.Broken()...), Took: time.Since(tr.began),
	})
}

// hits is how often an engine met its fault.
func (r *rig) hits(t *testing.T, p *system.Process) int {
	t.Helper()
	var list []simulated.Fault
	engine(t, p, http.MethodGet, "/sim/faults", nil, &list)
	n := 0
	for _, f := range list {
		n += f.Hits
	}
	return n
}
