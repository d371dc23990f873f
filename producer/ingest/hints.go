package ingest

import (
	"context"
	"log/slog"
	"time"

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
}

// Hinter stores hints. They never overwrite what is known of a task's end.
type Hinter interface {
	Queued(ctx context.Context, hints []Hint) error
}

// Bounds of the hints. A full queue drops: a hint only lets a poll say `queued`
// instead of `pending`, and must never slow a submit.
const (
	hintQueue   = 8192
	hintBatch   = 512
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
	batch := make([]Hint, 0, hintBatch)
	for {
		select {
		case <-ctx.Done():
			for batch = h.collect(batch[:0]); len(batch) > 0; batch = h.collect(batch[:0]) {
				if !h.store(context.WithoutCancel(ctx), batch) {
					return
				}
			}
			return
		case first := <-h.queue:
			batch = h.collect(append(batch[:0], first))
			h.store(context.WithoutCancel(ctx), batch)
		}
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
	ctx, cancel := context.WithTimeout(ctx, hintTimeout)
	defer cancel()
	err := h.to.Queued(ctx, batch)
	if err != nil {
		h.metrics.hintsDropped(len(batch))
		h.log.Debug("hints lost", "tasks", len(batch), "err", err)
	}
	return err == nil
}
