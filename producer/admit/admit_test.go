package admit_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/schema/fault"
)

func TestStandingTellsWhatIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := admit.New(admit.Params{TasksPerSecond: 2, Burst: 3, Exempt: "dev"}, prometheus.NewRegistry())
		for _, want := range []admit.Standing{{3, 3, 0}, {3, 2, 500 * time.Millisecond}, {3, 1, time.Second}, {3, 0, 1500 * time.Millisecond}, {3, 0, 1500 * time.Millisecond}} {
			if got, limited := l.Standing("acme"); got != want || !limited {
				t.Errorf("%+v, %t; want %+v", got, limited, want)
			}
			_ = l.Task("acme") // refused in the end
		}
		if _, limited := l.Standing("dev"); limited {
			t.Error("the exempt have a limit")
		}
		if _, limited := admit.New(admit.Params{}, prometheus.NewRegistry()).Standing("acme"); limited {
			t.Error("a limit where there is none")
		}
	})
}

func TestTaskHoldsTheRatePerTenant(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := admit.New(admit.Params{TasksPerSecond: 2, Burst: 3, Exempt: "dev"}, prometheus.NewRegistry())
		for range 3 {
			if err := l.Task("acme"); err != nil {
				t.Fatal(err)
			}
		}
		err := l.Task("acme")
		if fault.CodeOf(err) != fault.Throttled || fault.RetryAfterOf(err) != 500*time.Millisecond {
			t.Errorf("got %v after %s, want throttled for 500 ms", err, fault.RetryAfterOf(err))
		}
		if err := l.Task("other"); err != nil {
			t.Errorf("another tenant paid: %v", err)
		}
		for range 100 {
			if err := l.Task("dev"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(500 * time.Millisecond) // inside the bubble: no real time
		if err := l.Task("acme"); err != nil {
			t.Errorf("still refused after the time it was told: %v", err)
		}
		if err := l.Task("acme"); err == nil {
			t.Error("a refused task gave its token back twice")
		}
	})
}

func TestEnterHoldsTheByteBudget(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	l := admit.New(admit.Params{InFlightBytes: 100, Exempt: "dev"}, reg)
	gauge := func() float64 {
		t.Helper()
		families, err := reg.Gather()
		if err != nil || len(families) != 1 {
			t.Fatal(families, err)
		}
		return families[0].GetMetric()[0].GetGauge().GetValue()
	}
	big, err := l.Enter("acme", 150)
	if err != nil {
		t.Fatal("a lone request over the budget could never be served")
	}
	if _, err := l.Enter("acme", 1); fault.CodeOf(err) != fault.Throttled || fault.RetryAfterOf(err) <= 0 {
		t.Errorf("got %v, want throttled with a wait", err)
	}
	if _, err := l.Enter("other", 100); err != nil {
		t.Errorf("another tenant paid: %v", err)
	}
	big.Shrink(40)
	small, err := l.Enter("acme", 60)
	if err != nil {
		t.Errorf("bytes given back by Shrink are not free: %v", err)
	}
	small.Leave()
	big.Leave()
	if _, err := l.Enter("dev", 1000); err != nil {
		t.Error(err)
	}
	if got := gauge(); got != 1100 {
		t.Errorf("gauge says %g, want the 1100 bytes still inside", got)
	}
	if n := testutil.CollectAndCount(reg); n != 1 {
		t.Errorf("%d metrics", n)
	}
}

func TestZeroMeansNoLimit(t *testing.T) {
	t.Parallel()
	l := admit.New(admit.Params{}, prometheus.NewRegistry())
	for range 1000 {
		if err := l.Task("acme"); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Enter("acme", 1<<30); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTenantsThatWentAwayAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := admit.New(admit.Params{TasksPerSecond: 0.001, Burst: 1}, prometheus.NewRegistry())
		for i := range 5000 {
			if err := l.Task(string(rune('a'+i%26)) + string(rune(i))); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(11 * time.Minute)
		for i := range 5000 {
			_ = l.Task("new" + string(rune(i)))
		}
		if n := l.Tenants(); n > 5100 {
			t.Errorf("%d tenants remembered", n)
		}
	})
}
