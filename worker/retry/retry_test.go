package retry_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/worker/retry"
)

func TestWait(t *testing.T) {
	p := retry.Default()
	bounds := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 8 * time.Second}
	for i, bound := range bounds {
		var longest, sum time.Duration
		const draws = 4000
		for range draws {
			w := p.Wait(i+1, 0)
			if w < 0 || w > bound {
				t.Fatalf("attempt %d: waited %s, bound %s", i+1, w, bound)
			}
			longest, sum = max(longest, w), sum+w
		}
		if longest < bound*9/10 {
			t.Errorf("attempt %d: the longest of %d waits is %s; full jitter reaches %s", i+1, draws, longest, bound)
		}
		if mean := sum / draws; mean < bound*2/5 || mean > bound*3/5 {
			t.Errorf("attempt %d: mean wait %s, want about half of %s", i+1, mean, bound)
		}
	}
	if w := p.Wait(1, 30*time.Second); w != 30*time.Second {
		t.Errorf("a hint of 30s gave %s", w)
	}
	if w := p.Wait(1, 5*time.Hour); w != p.MaxRetryAfter {
		t.Errorf("a hint of 5h gave %s, want the cap %s", w, p.MaxRetryAfter)
	}
	if p.Exhausted(4) || !p.Exhausted(5) {
		t.Error("the fifth counted attempt is the last")
	}
}

func TestPlaceSpendsTheWholeWait(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		wait := time.Duration(rapid.Int64Range(0, int64(30*time.Minute)).Draw(t, "wait"))
		tier, rest := retry.Place(wait)
		if tier == nil {
			if wait >= topic.Tiers()[0].Delay || rest != wait {
				t.Fatalf("%s: no tier, rest %s", wait, rest)
			}
			return
		}
		if tier.Delay+rest != wait || rest < 0 {
			t.Fatalf("%s: tier %s and rest %s", wait, tier.Delay, rest)
		}
		for _, bigger := range topic.Tiers() {
			if bigger.Delay > tier.Delay && bigger.Delay <= wait {
				t.Fatalf("%s: tier %s, though %s fits", wait, tier.Name, bigger.Name)
			}
		}
	})
}

func TestBudget(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	grant := func(b *retry.Budget, n int) (granted int) {
		for range n {
			if b.Retry(now) {
				granted++
			}
		}
		return granted
	}
	t.Run("a quiet backend may still be retried up to the floor", func(t *testing.T) {
		if got := grant(&retry.Budget{}, 100); got != 10 {
			t.Errorf("granted %d, want 10", got)
		}
	})
	t.Run("a busy one up to a tenth of its traffic", func(t *testing.T) {
		var b retry.Budget
		for range 900 {
			b.Call(now)
		}
		if got := grant(&b, 1000); got < 95 || got > 105 {
			t.Errorf("granted %d of 900 calls, want about 100", got)
		}
	})
	t.Run("what is older than ten seconds is forgotten", func(t *testing.T) {
		var b retry.Budget
		grant(&b, 100)
		now = now.Add(10 * time.Second)
		if got := grant(&b, 100); got != 10 {
			t.Errorf("granted %d, want 10", got)
		}
	})
}
