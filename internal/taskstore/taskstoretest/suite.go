// Package taskstoretest is the conformance suite of the task store: the same
// tests against the Redis of the tests and against a real one.
package taskstoretest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/penstock/penstock/internal/projection"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// Open returns a client of an empty Redis that the test owns.
type Open func(t *testing.T) redis.UniversalClient

const (
	tenant = "acme"
	only   = 1 // partitions: every task shares one, so that records interleave
)

type bundle struct {
	rdb    redis.UniversalClient
	store  *taskstore.Store
	minter *task.Minter
	now    time.Time
}

func setup(t *testing.T, open Open, p taskstore.Params) bundle {
	t.Helper()
	rdb := open(t)
	if err := rdb.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	minter, err := task.NewMinter(task.Secret{Key: []byte("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	return bundle{rdb, taskstore.New(rdb, p), minter, time.Now().Truncate(time.Millisecond).UTC()}
}

// id is a fresh id; its time is never the start of a bucket.
func (b bundle) id() task.ID { return b.minter.New(tenant, b.now.Add(time.Millisecond)) }

func (b bundle) ended(id task.ID, s task.Status, generation int) *terminal.Terminal {
	t := &terminal.Terminal{
		SchemaVersion: task.SchemaVersion, TaskID: id, Status: s, Tenant: tenant, Model: "sim-chat",
		CreatedAt: b.now, EndedAt: b.now.Add(time.Second),
	}
	if generation >= 0 {
		g := uint8(generation)
		t.Generation = &g
	}
	if s == task.Succeeded {
		t.Output = &task.Output{Text: "hello \"world\"\n<&>"}
	}
	return t
}

// apply applies records at offsets from..., on a partition that starts at 0.
func (b bundle) apply(t *testing.T, from int64, records ...*terminal.Terminal) {
	t.Helper()
	if err := b.store.Rebuild(t.Context(), 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	batch := make([]taskstore.Applied, len(records))
	for i, r := range records {
		batch[i] = taskstore.Applied{Terminal: r, Offset: from + int64(i)}
	}
	if err := b.store.Apply(t.Context(), 0, from, from+int64(len(records)), batch); err != nil {
		t.Fatal(err)
	}
}

func (b bundle) get(t *testing.T, id task.ID) taskstore.Found {
	t.Helper()
	f, err := b.store.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Run runs the suite.
func Run(t *testing.T, open Open) {
	t.Run("a result that expires leaves its state, so that a late record still loses", func(t *testing.T) {
		b := setup(t, open, taskstore.Params{Partitions: only})
		id := b.id()
		b.apply(t, 0, b.ended(id, task.Succeeded, 0))
		if f := b.get(t, id); f.Expired || f.Terminal == nil {
			t.Fatalf("fresh result: %+v", f)
		}
		if err := b.rdb.Del(t.Context(), rediskey.Result(0, id)).Err(); err != nil { // as its time to live does
			t.Fatal(err)
		}
		b.apply(t, 1, b.ended(id, task.Failed, 0))
		f := b.get(t, id)
		if !f.Expired || f.Terminal != nil || f.State.Status != task.Succeeded || f.View.Status != task.Succeeded {
			t.Errorf("found %+v; want an expired success", f)
		}
		list, err := b.store.List(t.Context(), tenant, taskstore.Filter{})
		if err != nil || len(list.Tasks) != 0 {
			t.Errorf("list %+v, %v; want the expired one left out", list, err)
		}
	})
	t.Run("the first terminal of a generation wins and never changes", func(t *testing.T) {
		b := setup(t, open, taskstore.Params{Partitions: only})
		id := b.id()
		b.apply(t, 0, b.ended(id, task.Succeeded, 0), b.ended(id, task.Cancelled, -1), b.ended(id, task.Dead, 0))
		f := b.get(t, id)
		if f.View.Status != task.Succeeded || f.State.Offset != 0 || f.View.Output.Text != "hello \"world\"\n<&>" || !f.CaughtUp {
			t.Errorf("found %+v", f)
		}
	})
	t.Run("a redrive opens the next generation, once, and only of a dead task", func(t *testing.T) { reopens(t, open) })
	t.Run("a replayed cancel does not end a generation that was opened after it", func(t *testing.T) {
		b := setup(t, open, taskstore.Params{Partitions: only})
		id := b.id()
		log := []*terminal.Terminal{b.ended(id, task.Dead, 0), b.ended(id, task.Cancelled, -1), b.ended(id, terminal.Reopened, 1)}
		b.apply(t, 0, log...)
		b.apply(t, 0, log...)
		if f := b.get(t, id); f.View.Status != task.Queued || f.View.Generation != 1 {
			t.Errorf("found %+v", f.View)
		}
	})
	t.Run("a gap changes nothing and says where to continue", func(t *testing.T) { gaps(t, open) })
	t.Run("any order of batches, replays, zombies and losses gives what the fold gives", func(t *testing.T) { folds(t, open) })
	t.Run("the ends of tasks of all partitions are known at once", func(t *testing.T) { endsOfAll(t, open) })
	t.Run("the terminal is the last event of the stream", func(t *testing.T) { streams(t, open) })
	t.Run("what is filled again from the log makes no stream anew for its end alone", func(t *testing.T) { refills(t, open) })
	t.Run("a subscriber hears of the terminal", func(t *testing.T) { publishes(t, open) })
	t.Run("terminals of tasks that are gone are ignored", func(t *testing.T) { ignoresGone(t, open) })
	t.Run("large batches are split", func(t *testing.T) { splits(t, open) })
	t.Run("hints never hide what is newer", func(t *testing.T) { hints(t, open) })
	t.Run("positions are set only where missing, or where stale", func(t *testing.T) { places(t, open) })
	t.Run("lists are whole, ordered and paged", func(t *testing.T) { lists(t, open) })
	t.Run("lists filter and forget what is gone", func(t *testing.T) { filters(t, open) })
	t.Run("an idempotency key remembers what came first", func(t *testing.T) { remembers(t, open) })
	t.Run("a brief tells open, ended, expired and unknown apart", func(t *testing.T) { briefly(t, open) })
	t.Run("a cancel is signalled", func(t *testing.T) { cancels(t, open) })
	t.Run("the index of deadlines holds what is open", func(t *testing.T) { dues(t, open) })
	t.Run("a log of a webhook is shown as far as it was folded", func(t *testing.T) { webhooks(t, open) })
	t.Run("a queue takes as many as it may", func(t *testing.T) { queues(t, open) })
	t.Run("a scan starts over when any part of its index is lost", func(t *testing.T) { scans(t, open) })
}

func reopens(t *testing.T, open Open) {
	b := setup(t, open, taskstore.Params{Partitions: only})
	id := b.id()
	reopened := b.ended(id, terminal.Reopened, 1)
	reopened.RedriveJob = "job-7"
	late := b.ended(id, terminal.Reopened, 1)
	late.RedriveJob = "job-8"
	b.apply(t, 0, reopened, b.ended(id, task.Dead, 0), reopened, late)
	states, err := b.store.States(t.Context(), []task.ID{id, b.id()})
	if err != nil {
		t.Fatal(err)
	}
	if want := (terminal.State{Generation: 1, Offset: 2, RedriveJob: "job-7"}); states[0] != want {
		t.Errorf("state %+v, want %+v", states[0], want)
	}
	if states[1] != (terminal.State{}) {
		t.Errorf("state of an unknown task: %+v", states[1])
	}
	if f := b.get(t, id); f.View.Status != task.Queued || f.View.Generation != 1 || f.Terminal != nil {
		t.Errorf("found %+v", f.View)
	}
	b.apply(t, 4, b.ended(id, task.Succeeded, 0), b.ended(id, task.Cancelled, -1))
	if f := b.get(t, id); f.View.Status != task.Cancelled || f.View.Generation != 1 || f.State.RedriveJob != "job-7" {
		t.Errorf("found %+v of %+v", f.View, f.State)
	}
	if top := b.events(t, id); top[len(top)-1] != event.TerminalID(1) {
		t.Errorf("last event is %s, want %s", top[len(top)-1], event.TerminalID(1))
	}
}

// events lists the ids of a task's stream.
func (b bundle) events(t *testing.T, id task.ID) []event.ID {
	t.Helper()
	entries, err := b.rdb.XRange(t.Context(), rediskey.Events(b.store.Partition(id), id), "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	out := make([]event.ID, len(entries))
	for i, e := range entries {
		if out[i], err = event.ParseID(e.ID); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func gaps(t *testing.T, open Open) {
	b := setup(t, open, taskstore.Params{Partitions: only})
	ctx, id := t.Context(), b.id()
	one := []taskstore.Applied{{Terminal: b.ended(id, task.Failed, 0), Offset: 7}}
	var gap *projection.GapError
	if err := b.store.Apply(ctx, 0, 7, 8, one); !errors.As(err, &gap) || !gap.Missing {
		t.Errorf("empty Redis: %v, want a missing projection", err)
	}
	if err := b.store.Rebuild(ctx, 0, 5, 9); err != nil {
		t.Fatal(err)
	}
	if err := b.store.Apply(ctx, 0, 7, 8, one); !errors.As(err, &gap) || gap.Missing || gap.Next != 5 {
		t.Errorf("gap: %v, want one at 5", err)
	}
	if f := b.get(t, id); f.Known || f.CaughtUp || f.View.Status != task.Pending {
		t.Errorf("found %+v, want nothing", f)
	}
	if err := b.store.Apply(ctx, 0, 5, 8, one); err != nil {
		t.Fatal(err)
	}
	if f := b.get(t, id); f.View.Status != task.Failed || f.CaughtUp {
		t.Errorf("found %+v, want failed and not caught up", f)
	}
	if err := b.store.Apply(ctx, 0, 8, 9, nil); err != nil { // one undecodable record
		t.Fatal(err)
	}
	if f := b.get(t, id); !f.CaughtUp {
		t.Error("not caught up at the target")
	}
}

// folds compares the script with terminal.State.Apply, its oracle.
func folds(t *testing.T, open Open) {
	b := setup(t, open, taskstore.Params{Partitions: only})
	rapid.Check(t, func(rt *rapid.T) {
		ctx := context.Background()
		if err := b.rdb.FlushDB(ctx).Err(); err != nil {
			rt.Fatal(err)
		}
		ids := []task.ID{b.id(), b.id()}
		log := drawLog(rt, b, ids)
		replay(ctx, rt, b, log)
		want := map[task.ID]terminal.State{}
		for offset, r := range log {
			if r != nil {
				want[r.TaskID], _ = want[r.TaskID].Apply(r, int64(offset))
			}
		}
		got, err := b.store.States(ctx, ids)
		if err != nil {
			rt.Fatal(err)
		}
		ends, err := b.store.Ends(ctx, ids)
		if err != nil {
			rt.Fatal(err)
		}
		for i, id := range ids {
			if got[i] != want[id] {
				rt.Fatalf("task %d: state %+v, the fold gives %+v", i, got[i], want[id])
			}
			if ends[i] != endOf(want[id]) {
				rt.Fatalf("task %d: its end is %s, of %+v", i, ends[i], want[id])
			}
		}
	})
}

// endOf is the id of the latest terminal of a task in a state; zero if it has none.
func endOf(st terminal.State) event.ID {
	switch {
	case !st.Open():
		return event.TerminalID(st.Generation)
	case st.Generation > 0:
		return event.TerminalID(st.Generation - 1)
	default:
		return event.ID{}
	}
}

func endsOfAll(t *testing.T, open Open) {
	const partitions = 3
	b := setup(t, open, taskstore.Params{Partitions: partitions})
	for p := range int32(partitions) {
		if err := b.store.Rebuild(t.Context(), p, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	next := make([]int64, partitions)
	var ids []task.ID
	var want []event.ID
	for i := range 40 {
		id := b.id()
		var log []*terminal.Terminal
		switch i % 4 {
		case 1:
			log = append(log, b.ended(id, task.Succeeded, 0))
		case 2:
			log = append(log, b.ended(id, task.Dead, 0), b.ended(id, terminal.Reopened, 1))
		case 3:
			log = append(log, b.ended(id, task.Dead, 0), b.ended(id, terminal.Reopened, 1), b.ended(id, task.Failed, 1))
		}
		var state terminal.State
		for _, r := range log {
			p := b.store.Partition(id)
			state, _ = state.Apply(r, next[p])
			if err := b.store.Apply(t.Context(), p, next[p], next[p]+1, []taskstore.Applied{{Terminal: r, Offset: next[p]}}); err != nil {
				t.Fatal(err)
			}
			next[p]++
		}
		ids, want = append(ids, id), append(want, endOf(state))
	}
	got, err := b.store.Ends(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if none, err := b.store.Ends(t.Context(), nil); err != nil || len(none) != 0 {
		t.Errorf("ends of no task: %v, %v", none, err)
	}
}

// drawLog draws the records of a partition; nil is one that cannot be decoded.
func drawLog(rt *rapid.T, b bundle, ids []task.ID) []*terminal.Terminal {
	statuses := []task.Status{task.Dead, task.Dead, task.Succeeded, task.Cancelled, task.Failed, terminal.Reopened, terminal.Reopened, ""}
	return rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) *terminal.Terminal {
		status := rapid.SampledFrom(statuses).Draw(rt, "status")
		if status == "" {
			return nil
		}
		r := b.ended(rapid.SampledFrom(ids).Draw(rt, "task"), status, rapid.IntRange(-1, 3).Draw(rt, "generation"))
		r.RedriveJob = rapid.SampledFrom([]string{"", "a", "b"}).Draw(rt, "job")
		return r
	}), 0, 40).Draw(rt, "log")
}

// replay applies a log the way projectors do on a bad day: in batches of any
// size, some of them again, some by a zombie that stands further back, some
// after a jump ahead, and with the loss of Redis in between.
func replay(ctx context.Context, rt *rapid.T, b bundle, log []*terminal.Terminal) {
	if rapid.Bool().Draw(rt, "redis starts empty") {
		_ = b.store.Rebuild(ctx, 0, 0, int64(len(log)))
	}
	for at := 0; at < len(log) || at == 0; {
		switch rapid.IntRange(0, 7).Draw(rt, "trouble") {
		case 0:
			b.rdb.FlushDB(ctx)
		case 1, 2:
			at = rapid.IntRange(0, at).Draw(rt, "zombie or replay from")
		case 3:
			at = rapid.IntRange(at, len(log)).Draw(rt, "jump to")
		}
		end := rapid.IntRange(at, min(at+6, len(log))).Draw(rt, "batch up to")
		err := b.store.Apply(ctx, 0, int64(at), int64(end), decoded(log, at, end))
		var gap *projection.GapError
		switch {
		case err == nil && end == len(log):
			return
		case err == nil:
			at = end
		case errors.As(err, &gap) && gap.Missing:
			if err := b.store.Rebuild(ctx, 0, 0, int64(len(log))); err != nil {
				rt.Fatal(err)
			}
			at = 0
		case errors.As(err, &gap):
			at = int(gap.Next)
		default:
			rt.Fatal(err)
		}
	}
}

func decoded(log []*terminal.Terminal, from, to int) []taskstore.Applied {
	var out []taskstore.Applied
	for i, r := range log[from:to] {
		if r != nil {
			out = append(out, taskstore.Applied{Terminal: r, Offset: int64(from + i)})
		}
	}
	return out
}

func streams(t *testing.T, open Open) {
	b := setup(t, open, taskstore.Params{Partitions: only})
	id := b.id()
	key := rediskey.Events(0, id)
	if err := b.rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: key, ID: "256-3", Values: []string{"e", "{}"}}).Err(); err != nil {
		t.Fatal(err)
	}
	b.apply(t, 0, b.ended(id, task.Expired, -1))
	if got := b.events(t, id); len(got) != 2 || got[1] != event.TerminalID(0) {
		t.Errorf("stream holds %v", got)
	}
	if err := b.rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: key, ID: "512-0", Values: []string{"e", "{}"}}).Err(); err == nil {
		t.Error("Redis took a token after the end")
	}
}

func refills(t *testing.T, open Open) {
	b := setup(t, open, taskstore.Params{Partitions: only})
	if err := b.store.Rebuild(t.Context(), 0, 0, 2); err != nil { // the log ended at 2 when Redis was lost
		t.Fatal(err)
	}
	lost, alive, late := b.id(), b.id(), b.id()
	key := rediskey.Events(0, alive)
	if err := b.rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: key, ID: "256-3", Values: []string{"e", "{}"}}).Err(); err != nil {
		t.Fatal(err)
	}
	b.apply(t, 0, b.ended(lost, task.Succeeded, -1), b.ended(alive, task.Cancelled, -1), b.ended(late, task.Failed, -1))
	for id, want := range map[task.ID]int{lost: 0, alive: 2, late: 1} {
		if got := b.events(t, id); len(got) != want || want > 0 && got[want-1] != event.TerminalID(0) {
			t.Errorf("stream holds %v, want %d events, the terminal last", got, want)
		}
	}
	if f := b.get(t, lost); f.Terminal == nil || f.Terminal.Output.Text == "" {
		t.Errorf("found %+v, want its result", f)
	}
}

func publishes(t *testing.T, open Open) {
	b := setup(t, open, taskstore.Params{Partitions: only})
	id := b.id()
	sub := b.rdb.Subscribe(t.Context(), rediskey.Live(0, id))
	defer sub.Close()
	if _, err := sub.Receive(t.Context()); err != nil { // the acknowledgement
		t.Fatal(err)
	}
	b.apply(t, 0, b.ended(id, task.Succeeded, 0), b.ended(id, task.Failed, 0))
	m, err := sub.ReceiveMessage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := event.TerminalID(0).String() + ` {"type":"succeeded","task_id":"` + string(id) + `",`
	if len(m.Payload) < len(want) || m.Payload[:len(want)] != want {
		t.Errorf("heard %q", m.Payload)
	}
}

func ignoresGone(t *testing.T, open Open) {
	b := setup(t, open, taskstore.Params{Partitions: only, TTL: time.Hour, MaxAge: time.Hour})
	old := b.minter.New(tenant, b.now.Add(-2*time.Hour-time.Minute))
	keyed := b.minter.Keyed(tenant, "k", [32]byte{}, b.now)
	b.apply(t, 0, b.ended(old, task.Succeeded, 0), b.ended(keyed, task.Succeeded, 0))
	if b.get(t, old).Known {
		t.Error("a terminal older than everything took effect")
	}
	if !b.get(t, keyed).Known {
		t.Error("a keyed id, which bears the start of its bucket, was taken for old")
	}
}

func splits(t *testing.T, open Open) {
	b := setup(t, open, taskstore.Params{Partitions: only})
	var records []*terminal.Terminal
	for range 300 {
		records = append(records, b.ended(b.id(), task.Succeeded, 0))
	}
	b.apply(t, 0, records...)
	ids := make([]task.ID, len(records))
	for i, r := range records {
		ids[i] = r.TaskID
	}
	states, err := b.store.States(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	for i, st := range states {
		if st.Status != task.Succeeded || st.Offset != int64(i) {
			t.Fatalf("task %d: %+v", i, st)
		}
	}
	if p, err := b.store.Projection(t.Context(), 0); err != nil || p.Next != 300 {
		t.Errorf("projection %+v, %v", p, err)
	}
}

func hints(t *testing.T, open Open) {
	b := setup(t, open, taskstore.Params{Partitions: only})
	id := b.id()
	hint := func(s task.Status, generation uint8, attempt int) {
		t.Helper()
		err := b.store.Hint(t.Context(), []taskstore.Hint{{
			ID: id, Tenant: tenant, Status: s, Generation: generation, Attempt: attempt,
			Model: "sim-chat", Class: task.Standard, Labels: map[string]string{"a": "b"}, CreatedAt: b.now,
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	expect := func(s task.Status, attempt int) {
		t.Helper()
		v := b.get(t, id).View
		n := 0
		if len(v.Attempts) > 0 {
			n = v.Attempts[0].N
		}
		if v.Status != s || n != attempt {
			t.Fatalf("status %s, attempt %d; want %s, %d", v.Status, n, s, attempt)
		}
	}
	hint(task.Running, 0, 1)
	hint(task.Queued, 0, 0) // the ingress was slower than the worker
	expect(task.Running, 1)
	hint(task.Queued, 0, 1) // waits for its retry
	expect(task.Queued, 0)
	hint(task.Running, 0, 2)
	hint(task.Running, 0, 1) // a zombie
	expect(task.Running, 2)
	v := b.get(t, id).View
	if v.Model != "sim-chat" || v.Class != task.Standard || v.Labels["a"] != "b" || !v.CreatedAt.Equal(b.now) {
		t.Errorf("view %+v", v)
	}
	b.apply(t, 0, b.ended(id, task.Dead, 0))
	hint(task.Running, 0, 3)
	if v := b.get(t, id).View; v.Status != task.Dead || v.Labels != nil {
		t.Errorf("view %+v, want dead as the terminal tells it, without the hint's labels", v)
	}
	b.apply(t, 1, b.ended(id, terminal.Reopened, 1))
	expect(task.Queued, 0)
	hint(task.Running, 0, 4)
	expect(task.Queued, 0)
	hint(task.Running, 1, 1)
	expect(task.Running, 1)
}

func places(t *testing.T, open Open) {
	b := setup(t, open, taskstore.Params{Partitions: only})
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(b.store.Rebuild(ctx, 0, 10, 20))
	must(b.store.Rebuild(ctx, 0, 0, 5))
	p, err := b.store.Projection(ctx, 0)
	must(err)
	if p != (projection.Position{Next: 10, Target: 20, Known: true}) || p.CaughtUp() {
		t.Errorf("projection %+v", p)
	}
	if set, err := b.store.Replace(ctx, 0, 11, 0, 5); set || err != nil {
		t.Errorf("replaced a position that was not there: %v", err)
	}
	if set, err := b.store.Replace(ctx, 0, 10, 0, 5); !set || err != nil {
		t.Errorf("did not replace a stale position: %v", err)
	}
}

func lists(t *testing.T, open Open) {
	b := setup(t, open, taskstore.Params{Partitions: 3})
	var hints []taskstore.Hint
	want := map[task.ID]bool{}
	for i := range 420 { // more than a window, and 300 within one millisecond
		at := b.now.Add(time.Duration(max(0, i-300)) * time.Millisecond)
		id := b.minter.New(tenant, at)
		want[id] = true
		hints = append(hints, taskstore.Hint{ID: id, Tenant: tenant, Status: task.Queued, CreatedAt: at})
	}
	if err := b.store.Hint(t.Context(), hints); err != nil {
		t.Fatal(err)
	}
	var got []task.ID
	var last time.Time
	for after := ""; ; {
		page, err := b.store.List(t.Context(), tenant, taskstore.Filter{Limit: 37, After: after})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range page.Tasks {
			if !last.IsZero() && v.CreatedAt.After(last) {
				t.Fatalf("%s is newer than the one before it", v.TaskID)
			}
			last = *v.CreatedAt
			got = append(got, v.TaskID)
		}
		if after = page.After; after == "" {
			break
		}
	}
	if len(got) != len(want) {
		t.Fatalf("listed %d of %d", len(got), len(want))
	}
	if unique := slices.Sorted(slices.Values(got)); !slices.Equal(unique, slices.Sorted(maps.Keys(want))) {
		t.Error("pages repeat or leave out tasks")
	}
	for limit, last := range map[int]bool{100: false, 119: false, 120: true, 121: true} {
		page, err := b.store.List(t.Context(), tenant, taskstore.Filter{Limit: limit, After: pageAfter(t, b, 300)})
		if err != nil || (page.After == "") != last {
			t.Errorf("%d of the last 120: cursor %q, %v", limit, page.After, err)
		}
	}
	if _, err := b.store.List(t.Context(), tenant, taskstore.Filter{After: "x-y"}); !errors.Is(err, taskstore.ErrCursor) {
		t.Errorf("bad cursor: %v", err)
	}
}

// pageAfter is the cursor after the first n tasks of a list.
func pageAfter(t *testing.T, b bundle, n int) string {
	t.Helper()
	after := ""
	for ; n > 0; n -= 100 {
		page, err := b.store.List(t.Context(), tenant, taskstore.Filter{Limit: 100, After: after})
		if err != nil {
			t.Fatal(err)
		}
		after = page.After
	}
	return after
}

func filters(t *testing.T, open Open) {
	b := setup(t, open, taskstore.Params{Partitions: 3})
	var hints []taskstore.Hint
	for i := range 20 {
		hints = append(hints, taskstore.Hint{
			ID: b.id(), Tenant: tenant, Status: task.Queued, Model: fmt.Sprintf("m%d", i%2),
			Labels: map[string]string{"run": fmt.Sprint(i % 4)},
		})
	}
	if err := b.store.Hint(t.Context(), hints); err != nil {
		t.Fatal(err)
	}
	if err := b.rdb.Del(t.Context(), rediskey.Task(b.store.Partition(hints[0].ID), hints[0].ID)).Err(); err != nil {
		t.Fatal(err) // as its time to live does
	}
	for f, want := range map[taskstore.Filter]int{
		{}:                              19,
		{Model: "m0"}:                   9,
		{Label: "run=1"}:                5,
		{Label: "run"}:                  19,
		{Label: "walk"}:                 0,
		{Model: "m1", Label: "run=2"}:   0,
		{Status: task.Running}:          0,
		{Status: task.Queued, Limit: 7}: 7,
	} {
		page, err := b.store.List(t.Context(), tenant, f)
		if err != nil || len(page.Tasks) != want {
			t.Errorf("%+v: %d tasks, %v; want %d", f, len(page.Tasks), err, want)
		}
	}
	left, err := b.rdb.ZScore(t.Context(), rediskey.Tenant(b.store.Partition(hints[0].ID), tenant), string(hints[0].ID)).Result()
	if !errors.Is(err, redis.Nil) {
		t.Errorf("an expired task is still indexed: %v, %v", left, err)
	}
	if page, err := b.store.List(t.Context(), "other", taskstore.Filter{}); err != nil || len(page.Tasks) != 0 {
		t.Errorf("another tenant sees %d tasks, %v", len(page.Tasks), err)
	}
}

func remembers(t *testing.T, open Open) {
	b := setup(t, open, taskstore.Params{})
	ctx, first, second := t.Context(), b.id(), b.id()
	hash, id, err := b.store.Fingerprint(ctx, tenant, "key one", "h1", first)
	if hash != "" || id != "" || err != nil {
		t.Errorf("first use: %q, %q, %v", hash, id, err)
	}
	hash, id, err = b.store.Fingerprint(ctx, tenant, "key one", "h2", second)
	if hash != "h1" || id != first || err != nil {
		t.Errorf("second use: %q, %q, %v", hash, id, err)
	}
	hash, id, err = b.store.Lookup(ctx, tenant, "key one")
	if hash != "h1" || id != first || err != nil {
		t.Errorf("look-up: %q, %q, %v", hash, id, err)
	}
	hash, id, err = b.store.Lookup(ctx, "other", "key one")
	if hash != "" || id != "" || err != nil {
		t.Errorf("another tenant's look-up: %q, %q, %v", hash, id, err)
	}
}

func cancels(t *testing.T, open Open) {
	b := setup(t, open, taskstore.Params{})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	heard, err := b.store.Cancels(ctx)
	if err != nil {
		t.Fatal(err)
	}
	id := b.id()
	tick := time.NewTicker(20 * time.Millisecond) // until the subscription stands
	defer tick.Stop()
	for {
		select {
		case got := <-heard:
			if got != id {
				t.Errorf("heard %s", got)
			}
			stop()
			for range heard { // until it is closed
			}
			return
		case <-tick.C:
			if err := b.store.SignalCancel(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func briefly(t *testing.T, open Open) {
	b := setup(t, open, taskstore.Params{Partitions: only})
	open1, ended, expired, unknown := b.id(), b.id(), b.id(), b.id()
	if err := b.store.Hint(t.Context(), []taskstore.Hint{{ID: open1, Tenant: tenant, Status: task.Queued}}); err != nil {
		t.Fatal(err)
	}
	b.apply(t, 0, b.ended(ended, task.Succeeded, 0), b.ended(expired, task.Failed, 0))
	if err := b.rdb.Del(t.Context(), rediskey.Result(0, expired)).Err(); err != nil {
		t.Fatal(err) // as its time to live does
	}
	got, err := b.store.Briefs(t.Context(), []task.ID{open1, ended, expired, unknown})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []taskstore.Brief{
		{Known: true, CaughtUp: true},
		{Known: true, Ended: true, CaughtUp: true, State: terminal.State{Status: task.Succeeded}},
		{Known: true, CaughtUp: true, State: terminal.State{Status: task.Failed, Offset: 1}},
		{CaughtUp: true},
	} {
		if got[i] != want {
			t.Errorf("task %d: %+v, want %+v", i, got[i], want)
		}
	}
}
