//go:build faults

package faults_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/penstock/penstock/cmd/faults/ledger"
	"github.com/penstock/penstock/cmd/faults/report"
	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// TestF14 lets the engine misbehave in every way we know, each towards the
// tasks of one mark and for a number of calls, while others share the batches.
func TestF14(t *testing.T) {
	t.Parallel()
	const first, whole = 3 * time.Second, 6 * time.Second // limits of a stream's first token and of an attempt
	const lethal = 3                                      // calls that fail by a fault that counts: with two 5xx, all of a task's tries
	rules := map[string]map[string]any{
		"throttled": {"status": 429, "retry_after": "1s", "count": 6},
		"hanging":   {"action": "hang", "count": lethal},
		"cut":       {"action": "cut", "after": 3, "count": lethal},
		"garbage":   {"action": "garbage", "count": lethal},
		"mangled":   {"action": "utf8", "count": 40},
		"dripping":  {"action": "drip", "delay": "1s", "count": lethal},
		"flooding":  {"action": "flood"},
		"unserved":  {"status": 404, "count": 10}, // as an engine answers that lacks the model
		"half":      {"action": "half", "count": lethal},
		"dropped":   {"action": "drop", "count": lethal},
	}
	load := ledger.Load{Name: "f14", Tasks: 1500, Streamed: 0.2, StreamTokens: 8, Marked: 0.25, Seed: 14}
	r := openRig(t, rigParams{Direct: true, Tenants: tenants(), System: system.Params{
		Workers: 2, Simulate: []string{"--base", "30ms", "--item", "3ms", "--max", "16"},
		Env: []string{
			fmt.Sprint("PENSTOCK_FIRST_TOKEN_TIMEOUT=", first), fmt.Sprint("PENSTOCK_ATTEMPT_TIMEOUT=", whole),
			fmt.Sprint("PENSTOCK_IDLE_TIMEOUT=", first),
		},
	}})
	for _, word := range slices.Sorted(maps.Keys(rules)) {
		rules[word]["match"] = word
		r.fault(t, rules[word])
		if word != "flooding" {
			load.Marks = append(load.Marks, ledger.Mark{Word: word, Garbled: word == "mangled"})
		}
	}
	r.fault(t, map[string]any{"status": 500, "ratio": 0.3, "match": load.Name + " task"})
	tr := r.try(t, load, 100)
	// Each of these is an answer of 100 MB, and so ends as too large.
	floods := r.beside(t, ledger.Load{Name: "f14b", Tasks: 6, Marked: 1, Marks: []ledger.Mark{{Word: "flooding", Fate: task.Failed}}}, 1)
	pause(t, 4*time.Second) // too short for five tries of one task
	engine(t, r.Simulators[0], http.MethodDelete, fmt.Sprint("/sim/faults/", len(rules)+1), nil, nil)
	most := int64(0)
	until(t, 2*time.Minute, "all is submitted", func() bool {
		for _, p := range r.Workers {
			rss, err := system.Resident(p.PID())
			must(t, err)
			most = max(most, rss)
		}
		return tr.finished()
	})
	v := tr.verdict(t, 3*time.Minute)
	w := floods.verdict(t, time.Minute)
	slowest, caught, paid, healthy := time.Duration(0), 0, 0, 0
	for _, e := range tr.book.Entries() {
		won := v.Log.Ends[e.ID].Ended()
		if won == nil {
			continue
		}
		if e.Mark == "" {
			healthy++
		}
		for _, a := range won.Attempts {
			if a.Code == string(fault.Timeout) {
				caught++
				limit := whole
				if e.Request.Stream {
					limit = first
				}
				slowest = max(slowest, a.EndedAt.Sub(a.StartedAt)-limit)
			}
			if e.Mark == "" && a.Code != "" && a.Status != 500 { // the 5xx hit anybody
				paid++
				break
			}
		}
	}
	report.Row(t, report.Result{
		Fault: "F14", What: fmt.Sprintf("30 %% 5xx, and %d further ways to misbehave", len(rules)),
		Target: "all non-poison finish; hang caught <= its limit + 1 s; body cap held; no item pays for a neighbour",
		Measured: fmt.Sprintf("%d of %d as expected; %d hangs caught, the slowest %s after its limit; workers at most %d MiB; %d of %d healthy tasks paid for a neighbour",
			v.Accepted+w.Accepted-len(v.WrongFate)-len(w.WrongFate), v.Accepted+w.Accepted, caught, seconds(slowest), most>>20, paid, healthy),
		OK:     len(v.WrongFate)+len(w.WrongFate) == 0 && caught > 0 && slowest <= time.Second && most <= memoryLimit && paid == 0,
		Broken: append(v.Broken(), w.Broken()...), Took: time.Since(tr.began),
	})
}
