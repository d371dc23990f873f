package ingest

import (
	"context"
	"encoding/hex"
	"slices"
	"time"

	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// quietTime is how long Redis is left alone after it failed to answer, so that
// a hung Redis costs one submit its timeout, not all of them.
const quietTime = time.Second

// recall asks Redis about the key of a draft. known means that the task is
// durable already; the draft then has its id. The error is fault.Conflict for a
// key that came with another body. While Redis does not answer nothing is
// known, and the deterministic id alone keeps a repeat from running twice.
func (in *Intake) recall(ctx context.Context, d *draft) (known bool, err error) {
	if !in.memoryAnswers() {
		return false, nil
	}
	hash := hex.EncodeToString(d.bodyHash[:])
	var seenHash string
	var seenID task.ID
	ok := in.ask(ctx, func(ctx context.Context) (err error) {
		seenHash, seenID, err = in.d.Memory.Fingerprint(ctx, d.task.Tenant, d.key, hash, d.task.ID)
		return err
	})
	if !ok {
		return false, nil
	}
	if seenHash != "" && seenHash != hash {
		return false, fault.New(fault.Conflict, "the Idempotency-Key was used with another body; use a new key for a new task")
	}
	return in.published(ctx, d, seenID), nil
}

// published looks for the task under the id the key had at first, then under
// those of this bucket and the one before. A task that is found gives the draft
// its id. A key that is known but whose task is not keeps its first id, unless
// that is two buckets old: a new task would outlive what such an id promises.
func (in *Intake) published(ctx context.Context, d *draft, seen task.ID) bool {
	candidates := []task.ID{d.task.ID, d.earlier}
	if seen != "" {
		candidates = []task.ID{seen, d.task.ID, d.earlier}
	}
	if seen == d.earlier {
		d.task.ID = seen
	}
	var known []bool
	ok := in.ask(ctx, func(ctx context.Context) (err error) {
		known, err = in.d.Memory.Known(ctx, candidates)
		return err
	})
	if !ok {
		return false
	}
	i := slices.Index(known, true)
	if i < 0 {
		return false
	}
	d.task.ID = candidates[i]
	return true
}

// durable reports whether anything is known of a task, which only a durable one
// leaves behind.
func (in *Intake) durable(ctx context.Context, d *draft) bool {
	var known []bool
	return in.memoryAnswers() && in.ask(ctx, func(ctx context.Context) (err error) {
		known, err = in.d.Memory.Known(ctx, []task.ID{d.task.ID})
		return err
	}) && known[0]
}

// remember tells Redis at once that keyed tasks are durable, so that a repeat
// need not write them again.
func (in *Intake) remember(ctx context.Context, keyed ...*draft) {
	if len(keyed) == 0 || !in.memoryAnswers() {
		return
	}
	hints := make([]Hint, len(keyed))
	for i, d := range keyed {
		hints[i] = d.hint()
	}
	in.ask(ctx, func(ctx context.Context) error { return in.d.Memory.Queued(ctx, hints) })
}

func (in *Intake) memoryAnswers() bool { return time.Now().UnixNano() >= in.quiet.Load() }

// ask puts one question to Redis and reports whether it was answered.
func (in *Intake) ask(ctx context.Context, question func(context.Context) error) bool {
	ctx, cancel := context.WithTimeout(ctx, in.p.MemoryTimeout)
	defer cancel()
	err := question(ctx)
	if err == nil {
		return true
	}
	in.quiet.Store(time.Now().Add(quietTime).UnixNano())
	in.d.Metrics.memoryFailed()
	in.d.Log.Debug("redis did not answer, the submit goes on without it", "err", err)
	return false
}
