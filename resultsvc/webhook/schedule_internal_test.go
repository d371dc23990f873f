package webhook

import (
	"testing"
	"time"

	"github.com/penstock/penstock/schema/webhook"
	"pgregory.net/rapid"
)

func TestWaitsAreTheScheduleWithinATenth(t *testing.T) {
	want := []time.Duration{
		5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
		10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
	}
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.IntRange(-1, webhook.MaxAttempts+2).Draw(r, "n")
		got, again := wait(n, rapid.Float64Range(0, 1).Draw(r, "chance"))
		if again != (n >= 1 && n < webhook.MaxAttempts) {
			r.Fatalf("another attempt after the %d-th: %t", n, again)
		}
		if !again {
			return
		}
		if mean := want[n-1]; got < mean*9/10 || got > mean*11/10 {
			r.Fatalf("waits %s after attempt %d; want %s, give or take a tenth", got, n, mean)
		}
	})
	first, _ := wait(1, 0)
	last, _ := wait(1, 1)
	if first == last {
		t.Error("all wait alike")
	}
}
