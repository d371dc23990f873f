package follow

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/projection"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
)

// tail is what this process knows of the live end of the results: for tasks
// that are younger than it, all there is.
type tail struct {
	skew  time.Duration
	limit int

	mu      sync.Mutex
	since   time.Time       // tasks made after it have no record before the tail; zero: none such
	starts  map[int32]int64 // from where on each partition was read without a break
	breaks  int             // how often records were skipped, and once for the beginning
	young   map[task.ID]terminal.State
	old     map[task.ID]terminal.State // the generation of the map before; dropped when young is full
	waiting []tailed
	next    time.Time // when the first of them is due, as far as the deliverer knows
}

// tailed is a terminal of a watched task that waits for its delivery.
type tailed struct {
	terminal *terminal.Terminal
	state    terminal.State // as the tail folds it
	offset   int64
	covered  bool // the tail alone can tell that it won
	due      time.Time
	tries    int

	confirmed bool // Redis had it once: watchers read it there
}

func newTail(remember int, skew time.Duration) *tail {
	return &tail{skew: skew, limit: max(1, remember/2), young: map[task.ID]terminal.State{}, old: map[task.ID]terminal.State{}}
}

// begin says that everything written from now on will be observed.
func (t *tail) begin(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forgetBefore(now)
}

// forgetBefore moves the age from which on tasks are known in full.
func (t *tail) forgetBefore(at time.Time) {
	if at = at.Add(t.skew); t.since.Before(at) {
		t.since = at
	}
}

// startAt says where the tail of each partition begins.
func (t *tail) startAt(starts map[int32]int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.starts = maps.Clone(starts)
	t.breaks++
}

// skipped says that records of a partition before an offset were missed: all
// that was known in full, or vouched for, is not any more.
func (t *tail) skipped(partition int32, to int64, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forgetBefore(now)
	t.starts[partition] = to
	t.breaks++
}

// vouch reports whether the tail knows everything that Redis did not when it
// showed a task open: all records from some offset on. The voucher holds while
// the tail's breaks are as many as it says.
func (t *tail) vouch(id task.ID, st terminal.State, partition int32, at projection.Position) (breaks int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	start, reads := t.starts[partition]
	if !reads || !at.Known || at.Next < start || !st.Open() || st.Generation > 0 {
		return 0, false
	}
	folded, known := t.young[id]
	if !known {
		folded = t.old[id]
	}
	return t.breaks, folded.Open() && folded.Generation == 0
}

func (t *tail) unbroken(breaks int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return breaks > 0 && breaks == t.breaks
}

// observe folds one record. It reports the state after it, whether it took
// effect, and whether the tail knows the task from its beginning.
func (t *tail) observe(r *terminal.Terminal, offset int64) (st terminal.State, won, covered bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	st, known := t.young[r.TaskID]
	if !known {
		st = t.old[r.TaskID]
	}
	st, won = st.Apply(r, offset)
	t.young[r.TaskID] = st
	if len(t.young) >= t.limit {
		t.turn()
	}
	return st, won, !t.since.IsZero() && r.TaskID.Time().After(t.since)
}

// Covers reports whether the tail alone will bring a task's terminal: it is
// younger than the tail, nothing of it is forgotten, and it has not ended yet.
func (f *Follower) Covers(id task.ID) bool {
	t := f.tail
	t.mu.Lock()
	defer t.mu.Unlock()
	st, known := t.young[id]
	if !known {
		st = t.old[id]
	}
	return st.Open() && !t.since.IsZero() && id.Time().After(t.since)
}

// turn forgets the older half. What is forgotten may have ended already, so
// tasks no younger than it are no longer known in full.
func (t *tail) turn() {
	for id := range t.old {
		if made := id.Time(); !t.since.IsZero() && t.since.Before(made) {
			t.since = made
		}
	}
	t.old, t.young = t.young, make(map[task.ID]terminal.State, t.limit)
}

// Tail tells the follower of a record at the live end of a results partition.
// Records of a partition must come in order.
func (f *Follower) Tail(_ context.Context, _ int32, offset int64, t *terminal.Terminal) {
	st, won, covered := f.tail.observe(t, offset)
	watched, vouched := f.vouchedFor(t.TaskID)
	covered = covered || vouched
	if !t.Status.Terminal() || (covered && !won) || !watched {
		return
	}
	f.await(tailed{
		terminal: t, state: st, offset: offset, covered: covered && won, due: time.Now().Add(f.p.TailGrace),
	})
}

// await has a terminal delivered when it is due.
func (f *Follower) await(w tailed) {
	f.tail.mu.Lock()
	f.tail.waiting = append(f.tail.waiting, w)
	sooner := f.tail.next.IsZero() || w.due.Before(f.tail.next)
	f.tail.mu.Unlock()
	if sooner {
		wake(f.due)
	}
}

// vouchedFor reports whether anybody watches a task, and whether the tail would
// know if it had ended before: see tail.vouch.
func (f *Follower) vouchedFor(id task.ID) (watched, vouched bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.feeds[id]
	if d == nil {
		return false, false
	}
	return true, f.tail.unbroken(d.vouched)
}

func (f *Follower) isWatched(id task.ID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.feeds[id] != nil
}

const (
	// tailRetry is the pause before Redis is asked again about a terminal that
	// it could not confirm; after tailTries the heartbeat is left to find it.
	tailRetry = 500 * time.Millisecond
	tailTries = 60
)

// runDeliveries delivers tailed terminals that Redis did not bring in time.
func (f *Follower) runDeliveries(ctx context.Context) {
	for {
		now, next := f.tail.ripe(time.Now())
		f.deliver(ctx, now)
		var timer <-chan time.Time
		if !next.IsZero() {
			timer = time.After(time.Until(next))
		}
		if len(now) > 0 {
			continue // some may wait again
		}
		select {
		case <-ctx.Done():
			return
		case <-f.due:
		case <-timer:
		}
	}
}

// ripe takes what is due, and says when the next will be.
func (t *tail) ripe(now time.Time) (due []tailed, next time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	rest := t.waiting[:0]
	for _, w := range t.waiting {
		if !w.due.After(now) {
			due = append(due, w)
			continue
		}
		rest = append(rest, w)
		if next.IsZero() || w.due.Before(next) {
			next = w.due
		}
	}
	clear(t.waiting[len(rest):])
	t.waiting, t.next = rest, next
	return due, next
}

// deliver asks Redis, briefly, who won, and delivers what it confirms or what
// the tail can vouch for itself.
func (f *Follower) deliver(ctx context.Context, due []tailed) {
	due = f.stillOpen(due)
	if len(due) == 0 {
		return
	}
	ids := make([]task.ID, len(due))
	for i, w := range due {
		ids[i] = w.terminal.TaskID
	}
	asking, cancel := context.WithTimeout(ctx, f.p.Confirm)
	states, err := f.store.States(asking, ids)
	cancel()
	for i, w := range due {
		switch {
		case err == nil && states[i].Status == w.terminal.Status && states[i].Offset == w.offset:
			f.confirmed(w.terminal.TaskID)
			// Redis may go away before it is read: then the tail delivers it.
			w.covered, w.confirmed, w.tries = true, true, max(w.tries, tailTries-1)
			f.later(w)
		case w.covered:
			// Who has not read history yet does so first, unless Redis is away.
			f.metrics.tailed.WithLabelValues(tailYoung).Inc()
			f.putTerminal(w.terminal, w.state.Generation, err != nil)
		default:
			f.later(w)
		}
	}
}

// stillOpen leaves out the tasks whose terminal came meanwhile, and those
// nobody watches any more.
func (f *Follower) stillOpen(due []tailed) []tailed {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []tailed
	for _, w := range due {
		d := f.feeds[w.terminal.TaskID]
		if d == nil || d.hasTerminal() {
			if !w.confirmed {
				f.metrics.tailed.WithLabelValues(tailByRedis).Inc()
			}
			continue
		}
		out = append(out, w)
	}
	return out
}

func (d *feed) hasTerminal() bool { return len(d.ring) > 0 && d.top().Fence.Terminal() }

// confirmed lets watchers read a terminal that Redis holds but has not brought,
// with what came before it.
func (f *Follower) confirmed(id task.ID) {
	f.metrics.tailed.WithLabelValues(tailConfirmed).Inc()
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := f.feeds[id]; d != nil {
		for _, w := range d.watches {
			w.reread()
		}
	}
}

// putTerminal delivers a terminal from the log; direct, also to those who could
// not read what came before it: it has the full text.
func (f *Follower) putTerminal(t *terminal.Terminal, generation uint8, direct bool) {
	e, err := eventlog.EntryOf(event.OfTerminal(t, generation))
	if err != nil {
		f.p.Log.Error("encode terminal event", "task_id", t.TaskID, "err", err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := f.feeds[t.TaskID]; d != nil {
		f.put(d, item{Entry: e, direct: direct})
	}
}

func (f *Follower) later(w tailed) {
	if w.tries++; w.tries > tailTries {
		if !w.confirmed {
			f.metrics.tailed.WithLabelValues(tailLeftToLookups).Inc()
		}
		return
	}
	w.due = time.Now().Add(tailRetry)
	f.await(w)
}

// RunTail reads the live end of penstock.results, without a group, until ctx
// is done. The client must consume nothing yet. Kafka being away is waited for.
func (f *Follower) RunTail(ctx context.Context, cl *kgo.Client) error {
	next := f.seekEnd(ctx, cl)
	for {
		fetches := cl.PollRecords(ctx, 4096)
		if ctx.Err() != nil {
			return nil
		}
		if fetches.IsClientClosed() {
			return errors.New("tail results: client closed")
		}
		fetches.EachError(func(_ string, partition int32, err error) {
			f.p.Log.Warn("tail results", "partition", partition, "err", err) // the client goes on by itself
		})
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset > next[r.Partition] {
				f.tail.skipped(r.Partition, r.Offset, time.Now())
			}
			next[r.Partition] = r.Offset + 1
			f.tailRecord(ctx, r)
		})
	}
}

// seekEnd starts at the ends the partitions have now, and returns them. Tasks
// made after the answer have all their records behind them.
func (f *Follower) seekEnd(ctx context.Context, cl *kgo.Client) map[int32]int64 {
	for {
		ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic.Results)
		if err == nil {
			err = ends.Error()
		}
		if err == nil && len(ends[topic.Results]) > 0 {
			at, next := map[int32]kgo.Offset{}, map[int32]int64{}
			ends.Each(func(o kadm.ListedOffset) {
				at[o.Partition], next[o.Partition] = kgo.NewOffset().At(o.Offset), o.Offset
			})
			f.tail.begin(time.Now())
			f.tail.startAt(next)
			cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic.Results: at})
			return next
		}
		if ctx.Err() != nil {
			return nil
		}
		f.p.Log.Warn("find end of results", "err", err)
		if !lifecycle.Pause(ctx, time.Second) {
			return nil
		}
	}
}

// tailRecord passes a record on. Headers are enough to fold a record nobody
// watches.
func (f *Follower) tailRecord(ctx context.Context, r *kgo.Record) {
	rec := tasktopic.FromKgo(r)
	if t, ok := wire.OutlineTerminal(rec); ok && !f.isWatched(t.TaskID) {
		f.tail.observe(t, r.Offset)
		return
	}
	t, err := wire.DecodeTerminal(rec)
	if err != nil {
		f.p.Log.Debug("undecodable result", "partition", r.Partition, "offset", r.Offset)
		return
	}
	f.Tail(ctx, r.Partition, r.Offset, t)
}
