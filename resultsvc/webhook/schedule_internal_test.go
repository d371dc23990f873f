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
		got, again := wait(n, rapid.Float64Range(0, 1).Draw(r, "chance"), 0)
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
	first, _ := wait(1, 0, 0)
	last, _ := wait(1, 1, 0)
	if first == last {
		t.Error("all wait alike")
	}
}

func TestAWishPostponesTheNextAttemptWithinTheSchedule(t *testing.T) {
	for name, c := range map[string]struct {
		n          int
		wish, want time.Duration
	}{
		"one that is shorter than the wait changes nothing": {2, time.Second, 5 * time.Minute},
		"one that is longer is granted":                     {2, 10 * time.Minute, 10 * time.Minute},
		"up to the wait after it":                           {1, time.Hour, 5 * time.Minute},
		"at the end up to a day":                            {9, 72 * time.Hour, 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			if got, again := wait(c.n, 0.5, c.wish); got != c.want || !again {
				t.Errorf("waits %s, again %t; want %s", got, again, c.want)
			}
		})
	}
	all := time.Duration(0)
	for n := range webhook.MaxAttempts {
		longest, _ := wait(n, 1, 1<<62)
		all += longest
	}
	if all > 5*24*time.Hour {
		t.Errorf("wishes stretch the schedule to %s: the records are deleted before", all)
	}
	if _, again := wait(webhook.MaxAttempts, 0.5, time.Hour); again {
		t.Error("a wish makes an attempt more")
	}
}
