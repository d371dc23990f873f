package ingest

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/time/rate"

	"github.com/penstock/penstock/schema/task"
)

// Hint says that a task is queued, and what a list shows of it.
type Hint struct {
	ID        task.ID
	Tenant    string
	Model     string
	Class     task.Class
	Labels    map[string]string
	CreatedAt time.Time
	Deadline  time.Time
}

// Hinter stores hints. They never overwrite what is known of a task's end.
type Hinter interface {
	Queued(ctx context.Context, hints []Hint) error
}

// Bounds of the hints. A full queue drops: a hint only lets a poll say `queued`
// instead of `pending`, and must never slow a submit. A burst is stored bit by
// bit: beyond the rate Redis would work more for hints than for results.
const (
	hintQueue   = 8192
	hintBatch   = 512
	hintRate    = 2000 // a second
	hintTimeout = time.Second
)

// Hints tells Redis which tasks are queued, behind the answers and in batches.
// All of it may be lost.
type Hints struct {
	to      Hinter
	metrics *Metrics
	log     *slog.Logger
	queue   chan Hint
}

// NewHints returns Hints; nothing is stored before Run.
func NewHints(to Hinter, m *Metrics, log *slog.Logger) *Hints {
	return &Hints{to: to, metrics: m, log: log, queue: make(chan Hint, hintQueue)}
}

// Offer takes a hint, or drops it when Redis is slow. It never blocks.
func (h *Hints) Offer(hint Hint) {
	select {
	case h.queue <- hint:
	default:
		h.metrics.hintsDropped(1)
	}
}

// Run stores hints until ctx ends, then those still queued, once.
func (h *Hints) Run(ctx context.Context) {
	pace := rate.NewLimiter(hintRate, hintBatch)
	batch := make([]Hint, 0, hintBatch)
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case first := <-h.queue:
			batch = h.collect(append(batch[:0], first))
			if !h.store(ctx, batch) {
				rest(ctx, quietTime)
			}
			_ = pace.WaitN(ctx, len(batch)) // fails only with ctx, which ends the loop
		}
	}
	for batch = h.collect(batch[:0]); len(batch) > 0; batch = h.collect(batch[:0]) {
		if !h.store(ctx, batch) {
			return
		}
	}
}

// rest waits, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// collect adds what is queued now, up to a full batch.
func (h *Hints) collect(batch []Hint) []Hint {
	for len(batch) < hintBatch {
		select {
		case hint := <-h.queue:
			batch = append(batch, hint)
		default:
			return batch
		}
	}
	return batch
}

func (h *Hints) store(ctx context.Context, batch []Hint) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hintTimeout)
	defer cancel()
	err := h.to.Queued(ctx, batch)
	if err != nil {
		h.metrics.hintsDropped(len(batch))
		h.log.Debug("hints lost", "tasks", len(batch), "err", err)
	}
	return err == nil
}
