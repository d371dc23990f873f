package retryafter_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/retryafter"
)

func TestParse(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		header, value string
		want          time.Duration
	}{
		{"Retry-After", "7", 7 * time.Second},
		{"Retry-After", " 1.5 ", 1500 * time.Millisecond},
		{"Retry-After-Ms", "250", 250 * time.Millisecond},
		{"Retry-After", "Sat, 21 Nov 2026 12:01:00 GMT", time.Minute},
		{"Retry-After", "Sat, 21 Nov 2026 11:00:00 GMT", 0},
		{"Retry-After", "-3", 0},
		{"Retry-After", "soon", 0},
		{"Retry-After", "1e300", retryafter.Max},
		{"Retry-After", "NaN", 0},
		{"Retry-After", "", 0},
	} {
		if got := retryafter.Parse(http.Header{tc.header: {tc.value}}, now); got != tc.want {
			t.Errorf("%s: %q = %s, want %s", tc.header, tc.value, got, tc.want)
		}
	}
}
