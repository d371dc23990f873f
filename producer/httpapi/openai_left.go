package httpapi

import (
	"context"
	"time"

	"github.com/penstock/penstock/internal/repeat"
)

// GraceDefault is how long a task is kept for a retry of a call whose client
// went away. SDKs come back within half a second, and the second time within
// one; what is beyond that is for the way here. A task that nobody comes for
// holds its slot on the engine so long.
const GraceDefault = 1500 * time.Millisecond

// settled ends a call whose client has got all there will be.
func (a *API) settled(ctx context.Context, k *call, outcome string) {
	if k.watches {
		return
	}
	a.metrics.calls.WithLabelValues(outcome).Inc()
	a.noted(a.d.Repeats.Answered(context.WithoutCancel(ctx), k.name, k.id))
}

// leave lets a retry take a call that has no answer; zero: another waits for it,
// or nobody can tell.
func (a *API) leave(ctx context.Context, k *call) repeat.Left {
	at, err := a.d.Repeats.Leave(ctx, k.name, k.id)
	a.noted(err)
	return at
}

// left ends a call whose client went away. A retry that comes within the grace
// takes its task; else the task is cancelled, unless it runs in the background.
// While the process drains it is the
// server that goes away: then the task goes on, for the retry that comes to
// another one.
func (a *API) left(ctx context.Context, k *call) {
	if k.watches {
		return
	}
	ctx = context.WithoutCancel(ctx)
	a.metrics.calls.WithLabelValues(outcomeLeft).Inc()
	at := a.leave(ctx, k)
	if at == 0 {
		return
	}
	timer := time.NewTimer(a.d.Grace)
	defer timer.Stop()
	select {
	case <-a.d.Drain.Done():
		return
	case <-timer.C:
	}
	alone, err := a.d.Repeats.Orphan(ctx, k.name, at)
	if a.noted(err); !alone || k.response.Background() {
		return
	}
	if _, err := a.d.Cancels.Cancel(ctx, k.tenant, k.id); err != nil {
		a.d.Log.Debug("task of a client that went away not cancelled", "task_id", string(k.id), "err", err)
		return
	}
	a.metrics.cancelled.Inc()
}
