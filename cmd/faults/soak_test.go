//go:build soak

package faults_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/cmd/faults/ledger"
	"github.com/penstock/penstock/cmd/faults/report"
	"github.com/penstock/penstock/cmd/system"
)

const (
	soakRate   = 70.0            // tasks a second: a million in four hours
	soakStep   = 4 * time.Minute // one fault each, on average
	soakRound  = 20 * time.Minute
	soakSample = 10 * time.Second
	soakWarm   = 5 * time.Minute // until caches, pools and heaps are as large as they get
	slopeLimit = 1 << 20         // bytes of resident memory per minute
)

// TestSoak is L4: PENSTOCK_SOAK_HOURS of steady load on one system with a fault
// every few minutes. The load comes in rounds, each of which is drained and held
// against Kafka, so that the account of a round is all that is kept of it.
// Memory, file descriptors and goroutines of each process must not grow.
func TestSoak(t *testing.T) {
	hours, err := strconv.ParseFloat(os.Getenv("PENSTOCK_SOAK_HOURS"), 64)
	if err != nil {
		t.Fatal("PENSTOCK_SOAK_HOURS:", err)
	}
	seed := uint64(time.Now().Unix())
	if text := os.Getenv("PENSTOCK_CHAOS_SEED"); text != "" {
		seed, err = strconv.ParseUint(text, 10, 64)
		must(t, err)
	}
	tenants := []string{"a", "b", "c"}
	r := openRig(t, rigParams{
		Brokers: 3, Settings: tuned(), Replica: true, Seed: seed, Tenants: tenants,
		System: system.Params{
			Producers: 2, Workers: 3, Results: 2,
			Simulate: []string{"--base", "20ms", "--item", "2ms", "--token", "10ms", "--max", "16"},
		},
	})
	m := r.meter(t)
	until := time.Now().Add(time.Duration(hours * float64(time.Hour)))
	for round := uint64(1); time.Now().Before(until); round++ {
		lasts := min(soakRound, time.Until(until))
		t.Run(fmt.Sprintf("round %d", round), func(t *testing.T) { soakOne(t, r, seed+round, lasts) })
	}
	m.report(t, seed)
}

func soakOne(t *testing.T, r *rig, seed uint64, lasts time.Duration) {
	began := time.Now()
	list := plan(seed, max(1, int(lasts/soakStep)), min(soakStep, lasts/2))
	list = slices.DeleteFunc(list, func(s strike) bool { return s.At+s.For > lasts })
	t.Log("strikes:", list)
	tr := r.try(t, ledger.Load{
		Name: "soak", Tasks: int(lasts.Seconds() * soakRate), Streamed: 0.1, StreamTokens: 40, Ordered: 0.1, Seed: seed,
	}, soakRate)
	must(t, (&wrath{r: r}).run(t.Context(), list))
	r.heal(t, time.Minute)
	tr.load.Wait()
	out := tr.conclude(t, time.Now(), drainWithin)
	report.Row(t, report.Result{
		Fault: "soak", What: fmt.Sprintf("%d tasks in %s with %d faults", out.Submitted, lasts.Round(time.Second), len(list)),
		Target: "I1 to I8 hold; drained <= 120 s", Measured: out.measured(), OK: out.InTime,
		Broken: out.Broken(), Seed: seed, Took: time.Since(began),
	})
}

// usage is what one life of a process used at a moment.
type usage struct {
	at         time.Time
	resident   int64
	goroutines int
	files      int
}

// meter samples every service for as long as the test lasts. A process that was
// started anew is a life of its own.
type meter struct {
	r     *rig
	mu    sync.Mutex
	lives map[string][]usage // by name and process id
}

func (r *rig) meter(t *testing.T) *meter {
	t.Helper()
	m := &meter{r: r, lives: map[string][]usage{}}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for sleep(ctx, soakSample) == nil {
			m.sample(ctx)
		}
	})
	t.Cleanup(func() { stop(); wg.Wait() })
	return m
}

func (m *meter) sample(ctx context.Context) {
	for _, p := range m.r.parts() {
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		u, err := ledger.Measure(short, p)
		cancel()
		files, fdErr := os.ReadDir(filepath.Join("/proc", strconv.Itoa(p.PID), "fd"))
		if err != nil || fdErr != nil {
			continue // dead or frozen just now
		}
		life := fmt.Sprintf("%s (%d)", p.Name, p.PID)
		m.mu.Lock()
		m.lives[life] = append(m.lives[life], usage{time.Now(), u.Resident, u.Goroutines, len(files)})
		m.mu.Unlock()
	}
}

// report adds a row for each life that was long enough to have a slope.
func (m *meter) report(t *testing.T, seed uint64) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for life, all := range m.lives {
		warm := slices.DeleteFunc(slices.Clone(all), func(u usage) bool { return u.at.Before(all[0].at.Add(soakWarm)) })
		if len(warm) < 30 {
			continue
		}
		memory := slope(warm, func(u usage) float64 { return float64(u.resident) })
		routines := slope(warm, func(u usage) float64 { return float64(u.goroutines) })
		files := slope(warm, func(u usage) float64 { return float64(u.files) })
		last := warm[len(warm)-1]
		report.Row(t, report.Result{
			Fault: "soak", What: life, Seed: seed, Took: last.at.Sub(all[0].at),
			Target: "memory < 1 MiB a minute; goroutines and files flat",
			Measured: fmt.Sprintf("memory %+.2f MiB a minute (now %d MiB), goroutines %+.2f an hour (now %d), files %+.2f an hour (now %d)",
				memory/(1<<20), last.resident>>20, routines*60, last.goroutines, files*60, last.files),
			OK: memory < slopeLimit && routines*60 < ledger.Spare && files*60 < ledger.Spare,
		})
	}
}

// slope is by Theil and Sen, per minute: the median over many pairs, which the
// spikes of a fault do not move.
func slope(list []usage, of func(usage) float64) float64 {
	rng := rand.New(rand.NewPCG(1, 1))
	var out []float64
	for range 5_000 {
		a, b := list[rng.IntN(len(list))], list[rng.IntN(len(list))]
		if minutes := b.at.Sub(a.at).Minutes(); minutes > 0 {
			out = append(out, (of(b)-of(a))/minutes)
		}
	}
	slices.Sort(out)
	return out[len(out)/2]
}

func TestSlope(t *testing.T) {
	var list []usage
	for i := range 100 {
		u := usage{at: time.Time{}.Add(time.Duration(i) * time.Minute), resident: int64(1000 + 7*i)}
		if i%10 == 0 {
			u.resident *= 50 // a fault
		}
		list = append(list, u)
	}
	if got := slope(list, func(u usage) float64 { return float64(u.resident) }); got < 6 || got > 8 {
		t.Errorf("slope %g, want 7", got)
	}
}
