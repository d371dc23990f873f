//go:build chaos

package faults_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/cmd/faults/ledger"
	"github.com/penstock/penstock/cmd/faults/report"
	"github.com/penstock/penstock/cmd/system"
)

const (
	chaosTasks   = 2_500
	chaosRate    = 55.0 // tasks a second
	chaosStrikes = 6
	chaosStep    = 7 * time.Second
)

// TestChaos is L3 and F24: from each seed a system on three brokers, a load,
// and six faults drawn from the whole catalogue that may overlap; then
// everything heals and drains, and the invariants must hold.
//
// PENSTOCK_CHAOS_SEEDS is how many seeds, from 1 on; PENSTOCK_CHAOS_SEED runs
// one alone. The faults and the load are a function of the seed; how the
// threads of a dozen processes interleave is not.
func TestChaos(t *testing.T) {
	for _, seed := range seeds(t) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { chaos(t, seed) })
	}
}

func seeds(t *testing.T) []uint64 {
	t.Helper()
	if text := os.Getenv("PENSTOCK_CHAOS_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		must(t, err)
		return []uint64{n}
	}
	n := uint64(20)
	if text := os.Getenv("PENSTOCK_CHAOS_SEEDS"); text != "" {
		var err error
		n, err = strconv.ParseUint(text, 10, 64)
		must(t, err)
	}
	var out []uint64
	for seed := uint64(1); seed <= n; seed++ {
		out = append(out, seed)
	}
	return out
}

func chaos(t *testing.T, seed uint64) {
	began := time.Now()
	tenants := []string{"a", "b", "c"}
	r := openRig(t, rigParams{
		Brokers: 3, Settings: tuned(), Replica: true, Seed: seed, Tenants: tenants,
		System: system.Params{
			Producers: 2, Workers: 3, Results: 2,
			Simulate: []string{"--base", "20ms", "--item", "2ms", "--token", "10ms", "--max", "16"},
		},
	})
	list := plan(seed, chaosStrikes, chaosStep)
	t.Log("strikes:", list)
	tr := r.try(t, ledger.Load{
		Name: "chaos", Tasks: chaosTasks, Streamed: 0.2, StreamTokens: 40, Ordered: 0.1, Seed: seed,
	}, chaosRate)
	must(t, (&wrath{r: r}).run(t.Context(), list))
	healed := time.Now()
	r.heal(t, time.Minute)
	out := tr.conclude(t, healed, drainWithin)
	var names []string
	for _, s := range list {
		names = append(names, s.String())
	}
	report.Row(t, report.Result{
		Fault: "F24", What: strings.Join(names, ", "), Seed: seed, Took: time.Since(began),
		Target: "I1 to I8 hold; drained <= 120 s after the last heal", Measured: out.measured(),
		OK: out.InTime, Broken: out.Broken(),
	})
}

func TestAPlanIsAFunctionOfItsSeed(t *testing.T) {
	drawn := map[string]bool{}
	for seed := range uint64(200) {
		a, b := plan(seed, chaosStrikes, chaosStep), plan(seed, chaosStrikes, chaosStep)
		if !slices.Equal(a, b) {
			t.Fatalf("seed %d draws two plans", seed)
		}
		for _, s := range a {
			drawn[s.Kind] = true
			if s.At < 0 || s.At > chaosStrikes*chaosStep || s.For < 2*time.Second {
				t.Errorf("seed %d: %+v", seed, s)
			}
		}
	}
	for _, kind := range kinds() {
		if !drawn[kind] {
			t.Errorf("no seed draws %q", kind)
		}
	}
}
