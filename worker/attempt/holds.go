package attempt

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/eventlog"
)

const (
	beatEvery    = time.Second // a third of eventlog.StaleAfter: two beats may be lost
	releaseQueue = 8192        // claims to let go of that a store which is away may keep waiting
	lastReleases = time.Second // for those that are left when the worker stops
)

// holds keeps the claims of running tries alive, and lets go of them when they
// have an outcome. All of it is best effort: a beat that is lost may let another
// worker repeat work, a release that is lost may count a loss.
type holds struct {
	log    Log
	limit  time.Duration // of one round trip
	logger *slog.Logger
	m      *metrics
	wake   chan struct{} // holds one wish

	mu      sync.Mutex
	running map[*Try]struct{}
	gone    []eventlog.Hold // to be released
}

func newHolds(log Log, limit time.Duration, logger *slog.Logger, m *metrics) *holds {
	return &holds{log: log, limit: limit, logger: logger, m: m, wake: make(chan struct{}, 1), running: map[*Try]struct{}{}}
}

// hold begins to keep claims alive; the returned function lets go of them. One
// whose result ends the task is kept from others for a last while.
func (h *holds) hold(tries []*Try, live []int) (done func([]Result)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, i := range live {
		h.running[tries[i]] = struct{}{}
	}
	return func(results []Result) {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, i := range live {
			t := tries[i]
			delete(h.running, t)
			h.gone = append(h.gone, eventlog.Hold{ID: t.Task.ID, Fence: t.Fence, Ended: Decide(t.N, results[i].Err).Next.Final()})
		}
		h.trim()
		h.nudge()
	}
}

// trim forgets the oldest releases beyond the bound; the caller holds the lock.
func (h *holds) trim() {
	if n := len(h.gone) - releaseQueue; n > 0 {
		h.gone = h.gone[n:]
	}
}

func (h *holds) nudge() {
	select {
	case h.wake <- struct{}{}:
	default: // it will look at everything anyway
	}
}

// run beats and releases until ctx is done, and releases what is left then.
func (h *holds) run(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastReleases)
			defer cancel()
			h.release(last)
			return
		case <-h.wake:
			h.release(ctx)
		case <-tick.C:
			h.release(ctx) // what the store did not take before
			h.beat(ctx)
		}
	}
}

func (h *holds) beat(ctx context.Context) {
	h.mu.Lock()
	beats := make([]eventlog.Hold, 0, len(h.running))
	for t := range h.running {
		beats = append(beats, eventlog.Hold{ID: t.Task.ID, Fence: t.Fence})
	}
	h.mu.Unlock()
	h.tell(ctx, "beat", beats, h.log.Beat)
}

func (h *holds) release(ctx context.Context) {
	h.mu.Lock()
	gone := h.gone
	h.gone = nil
	h.mu.Unlock()
	if h.tell(ctx, "release", gone, h.log.Release) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone = append(gone, h.gone...)
	h.trim()
}

// tell makes one round trip about some claims; it reports false if it failed.
func (h *holds) tell(ctx context.Context, what string, holds []eventlog.Hold, write func(context.Context, []eventlog.Hold) error) bool {
	if len(holds) == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, h.limit)
	defer cancel()
	err := write(ctx, holds)
	if err != nil {
		h.m.beats.WithLabelValues(what, "error").Inc()
		h.logger.Debug("claims not told of", "what", what, "err", err)
		return false
	}
	h.m.beats.WithLabelValues(what, "ok").Inc()
	return true
}
