package sim_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// setting reads a number from the environment.
func setting(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// defaultTasks is how many tasks a seed has, unless the environment says
// otherwise.
const defaultTasks = 200

func TestASeedIsOnePlan(t *testing.T) {
	a, b, other := newPlan(7, 50), newPlan(7, 50), newPlan(8, 50)
	exact := cmp.AllowUnexported(plan{}, order{}, strike{})
	if diff := cmp.Diff(a, b, exact); diff != "" {
		t.Error("one seed made two plans: " + diff)
	}
	if cmp.Equal(a, other, exact) {
		t.Error("two seeds made one plan")
	}
}

func TestEveryFaultStrikes(t *testing.T) {
	left := maps.Clone(faults)
	for seed := range uint64(defaultSeeds) {
		for _, s := range newPlan(seed, defaultTasks).strikes {
			delete(left, s.what)
		}
	}
	for name := range left {
		t.Errorf("none of the %d seeds that run without being asked for has the fault %q", defaultSeeds, name)
	}
}

func TestSimulation(t *testing.T) {
	first, seeds := uint64(0), setting(t, "PENSTOCK_SIM_SEEDS", defaultSeeds)
	if os.Getenv("PENSTOCK_SIM_SEED") != "" {
		first, seeds = setting(t, "PENSTOCK_SIM_SEED", 0), 1
	}
	tasks := int(setting(t, "PENSTOCK_SIM_TASKS", defaultTasks))
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { simulate(t, seed, tasks) })
		})
	}
}

func simulate(t *testing.T, seed uint64, tasks int) {
	p := newPlan(seed, tasks)
	if os.Getenv("PENSTOCK_SIM_CALM") != "" { // what goes wrong without faults is not their doing
		p.strikes = nil
	}
	w := openWorld(t, seed)
	w.receiver.orders = p.orders
	defer w.close()
	defer func() {
		if t.Failed() {
			for _, s := range p.strikes {
				t.Log(s)
			}
		}
	}()
	time.Sleep(2 * time.Second) // all are up, and fault-free orders have a chance

	watching, stopWatching := context.WithCancel(context.Background())
	defer stopWatching()
	var calls, strikes sync.WaitGroup
	callers := make([]*caller, len(p.orders))
	for i, o := range p.orders {
		callers[i] = w.newCaller(i, o)
		calls.Go(func() { callers[i].run(watching) })
	}
	for _, s := range p.strikes {
		strikes.Go(func() {
			time.Sleep(s.at)
			faults[s.what](w, s)
		})
	}
	time.Sleep(length)
	strikes.Wait()
	w.heal()
	time.Sleep(5 * time.Second)
	w.settled()
	w.redrive(strike{pick: 1})
	w.settled()

	late := time.AfterFunc(5*time.Minute, stopWatching)
	calls.Wait()
	late.Stop()
	var polls sync.WaitGroup
	for _, c := range callers {
		if c.id != "" {
			polls.Go(func() { c.lastPolls(watching) })
		}
	}
	polls.Wait()
	w.verdict(callers)
}
