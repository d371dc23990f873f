package joblog

import (
	"context"
	"log/slog"
	"time"

	"github.com/penstock/penstock/internal/lifecycle"
)

const (
	pollFirst = 100 * time.Millisecond
	pollMost  = 5 * time.Second
)

// Poll calls read until ctx ends. What cannot be read now is tried again, ever
// more slowly and loudly, since nothing moves meanwhile.
func Poll(ctx context.Context, log *slog.Logger, read func(context.Context) error) {
	for wait := pollFirst; ; {
		err := read(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			wait = pollFirst
			continue
		}
		log.Warn("the log of jobs cannot be read, trying again", "err", err, "wait", wait)
		if !lifecycle.Pause(ctx, wait) {
			return
		}
		wait = min(2*wait, pollMost)
	}
}
