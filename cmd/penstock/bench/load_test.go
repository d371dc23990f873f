package bench_test

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock/penstock/cmd/penstock/bench"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLoad(t *testing.T) {
	t.Run("closed: every client calls again once it is answered", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			load := bench.Load{Clients: 4, Length: 10 * time.Second}
			res := load.Run(t.Context(), func(context.Context, int) error {
				time.Sleep(100 * ms)
				return nil
			})
			if res.Calls != 400 || res.Elapsed != 10*time.Second {
				t.Errorf("%d calls in %s, want 400 in 10s", res.Calls, res.Elapsed)
			}
			if q := res.Quantile(50); q < 99*ms || q > 101*ms {
				t.Errorf("median %s, want 100ms", q)
			}
		})
	})
	t.Run("open: a stall counts for everyone who was due meanwhile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			load := bench.Load{Rate: 100, Length: 10 * time.Second, Seed: 7}
			began := time.Now()
			res := load.Run(t.Context(), func(context.Context, int) error {
				if at := time.Since(began); at < 5*time.Second { // nobody is answered in the first half
					time.Sleep(5*time.Second - at)
				}
				return nil
			})
			if res.Calls < 900 || res.Calls > 1100 {
				t.Errorf("%d calls, want about 1000 whatever the answers do", res.Calls)
			}
			if q := res.Quantile(75); q < 2*time.Second {
				t.Errorf("a quarter of the calls took longer than only %s, though half of all waited up to 5 s", q)
			}
		})
	})
	t.Run("failures are counted and the first is kept", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var n atomic.Int64
			broken := errors.New("broken")
			res := bench.Load{Clients: 1, Length: time.Second}.Run(t.Context(), func(context.Context, int) error {
				time.Sleep(100 * ms)
				if n.Add(1)%2 == 0 {
					return broken
				}
				return nil
			})
			if res.Calls != 5 || res.Failed != 5 || !errors.Is(res.Err, broken) {
				t.Errorf("%d good, %d failed, first %v", res.Calls, res.Failed, res.Err)
			}
		})
	})
}

func TestCPU(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("no /proc here")
	}
	before, err := bench.CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for began, n := time.Now(), 0; time.Since(began) < 200*ms; n++ {
		_ = n * n
	}
	after, err := bench.CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if used := after - before; used < 50*ms || used > 2*time.Second {
		t.Errorf("200ms of work cost %s of processor time", used)
	}
}
