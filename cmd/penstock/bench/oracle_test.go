package bench_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/penstock/penstock/cmd/penstock/bench"
)

const ms = time.Millisecond

func TestOracle(t *testing.T) {
	gpu := bench.GPU{Base: 20 * ms, Item: ms, Max: 2}
	tests := []struct {
		name     string
		arrivals []time.Duration
		want     []time.Duration
	}{
		{"a lone task is served at once", []time.Duration{5 * ms}, []time.Duration{21 * ms}},
		{"company that comes later waits for the GPU", []time.Duration{0, 1 * ms, 2 * ms}, []time.Duration{21 * ms, 42 * ms, 41 * ms}},
		{"more than a batch waits twice", []time.Duration{0, 0, 0}, []time.Duration{22 * ms, 22 * ms, 43 * ms}},
		{"an idle GPU keeps nobody waiting", []time.Duration{0, 100 * ms}, []time.Duration{21 * ms, 21 * ms}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, gpu.Oracle(tt.arrivals)); diff != "" {
				t.Error("latencies (-want +got):\n" + diff)
			}
		})
	}
}

func TestOracleServesEveryArrivalInOrderAndNeverFasterThanTheGPU(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gpu := bench.GPU{
			Base: time.Duration(rapid.IntRange(0, 50).Draw(t, "base")) * ms,
			Item: time.Duration(rapid.IntRange(1, 5).Draw(t, "item")) * ms,
			Max:  rapid.IntRange(1, 40).Draw(t, "max"),
		}
		rate := rapid.Float64Range(1, 2*gpu.Capacity()).Draw(t, "rate")
		arrivals := bench.Poisson(rate, 2*time.Second, rapid.Uint64().Draw(t, "seed"))
		got := gpu.Oracle(arrivals)
		ends := make([]time.Duration, len(got))
		for i := range got {
			if got[i] < gpu.Base+gpu.Item {
				t.Fatalf("arrival %d took %s, the GPU alone takes %s", i, got[i], gpu.Base+gpu.Item)
			}
			ends[i] = arrivals[i] + got[i]
		}
		if !slices.IsSorted(ends) {
			t.Fatal("a later arrival was served before an earlier one")
		}
	})
}

func TestPoissonHasItsRate(t *testing.T) {
	got := float64(len(bench.Poisson(500, 100*time.Second, 1))) / 100
	if got < 480 || got > 520 {
		t.Errorf("%.1f arrivals a second, want about 500", got)
	}
}
