// Package retryafter reads how long an HTTP answer asks its client to wait.
package retryafter

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Max bounds what Parse returns.
const Max = 24 * time.Hour

// Parse reads how long an HTTP answer asks us to wait: the header
// retry-after-ms, else Retry-After in seconds or as a date (RFC 9110, 10.2.3).
// Zero if it says nothing we understand, or nothing ahead of now.
func Parse(h http.Header, now time.Time) time.Duration {
	if ms, err := strconv.ParseFloat(strings.TrimSpace(h.Get("Retry-After-Ms")), 64); err == nil && ms >= 0 {
		return hint(ms * float64(time.Millisecond))
	}
	raw := strings.TrimSpace(h.Get("Retry-After"))
	if s, err := strconv.ParseFloat(raw, 64); err == nil && s >= 0 {
		return hint(s * float64(time.Second))
	}
	if at, err := http.ParseTime(raw); err == nil && at.After(now) {
		return min(at.Sub(now), Max)
	}
	return 0
}

// hint keeps huge numbers from overflowing a duration.
func hint(d float64) time.Duration {
	if d >= float64(Max) {
		return Max
	}
	return time.Duration(d)
}
