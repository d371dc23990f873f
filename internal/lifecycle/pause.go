package lifecycle

import (
	"context"
	"time"
)

// Pause waits between two rounds of a loop, unless ctx ends first; false if it
// did.
func Pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
