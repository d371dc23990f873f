package follow_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// reader is one watcher that stays.
type reader struct {
	b   *bundle
	ctx context.Context
	c   *follow.Cursor
}

// join watches a task from after an event on.
func (b *bundle) join(id task.ID, after event.ID) *reader {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	b.t.Cleanup(cancel)
	c, err := b.follower.Follow(ctx, id, after)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(c.Close)
	return &reader{b, ctx, c}
}

// sees reads as many events as are wanted, and compares.
func (r *reader) sees(want ...string) {
	r.b.t.Helper()
	for _, w := range want {
		e, err := r.c.Next(r.ctx)
		if err != nil {
			r.b.t.Fatalf("want %s: %v", w, err)
		}
		if got := line(e); got != w {
			r.b.t.Fatalf("got %s, want %s", got, w)
		}
	}
}

// isOver checks that nothing comes after what was seen.
func (r *reader) isOver() {
	r.b.t.Helper()
	if e, err := r.c.Next(r.ctx); !errors.Is(err, io.EOF) {
		r.b.t.Errorf("after the end: %s, %v", line(e), err)
	}
}

// flush empties Redis, and makes the projection known again.
func (b *bundle) flush() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.rdb.FlushDB(context.Background()).Err(); err != nil {
		b.t.Fatal(err)
	}
	if err := b.store.Rebuild(context.Background(), 0, b.next, b.next); err != nil {
		b.t.Fatal(err)
	}
}

// keep makes the stream what it was after its first n entries, as on a replica
// that had no more when it was promoted.
func (b *bundle) keep(id task.ID, n int64) {
	b.t.Helper()
	ctx, key := context.Background(), rediskey.Events(0, id)
	entries, err := b.rdb.XRangeN(ctx, key, "-", "+", n).Result()
	if err != nil {
		b.t.Fatal(err)
	}
	b.rdb.Del(ctx, key)
	for _, e := range entries {
		err := b.rdb.XAdd(ctx, &redis.XAddArgs{Stream: key, ID: e.ID, Values: []any{"e", e.Values["e"], "n", e.Values["n"]}}).Err()
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

// gap says what a writer repeats that remembers only what comes after seq.
func (b *bundle) gap(id task.ID, f event.Fence, seq uint64) {
	b.t.Helper()
	gap := event.Event{ID: event.ID{Fence: f, Seq: seq}, Type: event.Gap, TaskID: id, Reason: "lost"}
	if err := b.log.Append(context.Background(), []eventlog.Append{{ID: id, Events: []event.Event{gap}}})[0]; err != nil {
		b.t.Error(err)
	}
}

// restarted is the bundle with a follower that begins anew, as after a restart
// of the service.
func (b *bundle) restarted() *bundle {
	next := &bundle{t: b.t, redis: b.redis, rdb: b.rdb, store: b.store, log: b.log, minter: b.minter}
	next.follower = follow.New(b.store, b.log, follow.Params{})
	next.run()
	return next
}

// endBy ends a task by an attempt's output.
func (b *bundle) endBy(id task.ID, s task.Status, f event.Fence, out *task.Output) {
	b.t.Helper()
	end := b.ended(id, s, f.Generation())
	end.Fence, end.Output = f.String(), out
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.store.Apply(context.Background(), 0, b.next, b.next+1, []taskstore.Applied{{Terminal: end, Offset: b.next}}); err != nil {
		b.t.Error(err)
	}
	b.next++
}

func spoken(f event.Fence, from, to uint64) (out []string) {
	for seq := from; seq <= to; seq++ {
		out = append(out, fmt.Sprintf("%s delta %d", event.ID{Fence: f, Seq: seq}, seq))
	}
	return out
}

var succeeded = event.TerminalID(0).String() + " succeeded "

func TestAStreamThatWasWrittenAgainIsSeenOnce(t *testing.T) {
	for name, lose := range map[string]func(b *bundle, id task.ID){
		"all of it was lost": func(b *bundle, _ task.ID) { b.flush() },
		"its end was lost":   func(b *bundle, id task.ID) { b.keep(id, 3) },
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t, follow.Params{Heartbeat: 20 * time.Millisecond})
			id, f := b.id(), fence(0, 1)
			live := b.join(id, event.ID{})
			b.claim(id, f, 1)
			b.say(id, f, 1, 5)
			live.sees(append([]string{"0-1 queued ", "256-0 started "}, spoken(f, 1, 5)...)...)
			behind := b.join(id, event.ID{Fence: f, Seq: 2})
			behind.sees(spoken(f, 3, 3)...)
			lose(b, id)
			absent := b.join(id, event.ID{Fence: f, Seq: 5}) // before the writer knows
			b.claim(id, f, 1)
			b.say(id, f, 1, 8)
			for r, from := range map[*reader]uint64{live: 6, behind: 4, absent: 6} {
				r.sees(spoken(f, from, 8)...)
			}
			b.endBy(id, task.Succeeded, f, &task.Output{Text: "12345678"})
			for _, r := range []*reader{live, behind, absent} {
				r.sees(succeeded)
				r.isOver()
			}
			for _, from := range []*bundle{b, b.restarted()} {
				for seq := uint64(1); seq <= 8; seq++ {
					want := append(spoken(f, seq+1, 8), succeeded)
					if d := cmp.Diff(want, from.watch(id, event.ID{Fence: f, Seq: seq}, all)); d != "" {
						t.Errorf("resumed after %d: %s", seq, d)
					}
				}
			}
		})
	}
}

func TestAGapIsToldToThoseWhoLackTheEvents(t *testing.T) {
	b := setup(t, follow.Params{})
	id, f := b.id(), fence(0, 1)
	has := b.join(id, event.ID{})
	b.claim(id, f, 1)
	b.say(id, f, 1, 5)
	has.sees(append([]string{"0-1 queued ", "256-0 started "}, spoken(f, 1, 5)...)...)
	b.flush()
	lacks := b.join(id, event.ID{Fence: f, Seq: 2})
	b.claim(id, f, 1)
	b.gap(id, f, 4)
	lacks.sees("256-4 gap ")
	b.say(id, f, 5, 7)
	lacks.sees(spoken(f, 5, 7)...)
	has.sees(spoken(f, 6, 7)...)
	b.endBy(id, task.Succeeded, f, &task.Output{Text: "1234567"})
	for _, r := range []*reader{has, lacks} {
		r.sees(succeeded)
		r.isOver()
	}
	tail := append(spoken(f, 5, 7), succeeded)
	told := append([]string{"256-4 gap "}, tail...)
	for _, from := range []*bundle{b, b.restarted()} {
		for after, want := range map[event.ID][]string{
			{}:                 append([]string{"0-1 queued ", "256-0 started "}, told...),
			{Fence: f}:         told,
			{Fence: f, Seq: 3}: told,
			{Fence: f, Seq: 4}: tail, // the gap itself, or the event that it stands for
			{Fence: f, Seq: 5}: tail[1:],
		} {
			if d := cmp.Diff(want, from.watch(id, after, all)); d != "" {
				t.Errorf("resumed after %s: %s", after, d)
			}
		}
	}
}

func TestAfterALossANewAttemptIsToldOnce(t *testing.T) {
	b := setup(t, follow.Params{})
	id, older, newer := b.id(), fence(0, 1), fence(0, 2)
	live := b.join(id, event.QueuedID())
	b.claim(id, older, 1)
	b.say(id, older, 1, 3)
	live.sees(append([]string{"256-0 started "}, spoken(older, 1, 3)...)...)
	b.flush()
	b.claim(id, newer, 1) // the same attempt in number: its first event is `started`
	b.say(id, newer, 1, 2)
	rest := append([]string{"512-0 restart "}, spoken(newer, 1, 2)...)
	live.sees(rest...)
	b.flush()
	b.claim(id, newer, 1)
	b.say(id, newer, 1, 3)
	live.sees(spoken(newer, 3, 3)...)
	b.endBy(id, task.Succeeded, newer, &task.Output{Text: "123"})
	live.sees(succeeded)
	live.isOver()
	want := append(append(rest, spoken(newer, 3, 3)...), succeeded)
	for _, from := range []*bundle{b, b.restarted()} {
		for i, after := range []event.ID{{Fence: older, Seq: 2}, {Fence: newer}, {Fence: newer, Seq: 1}, {Fence: newer, Seq: 2}, {Fence: newer, Seq: 3}} {
			if d := cmp.Diff(want[i:], from.watch(id, after, all)); d != "" {
				t.Errorf("resumed after %s: %s", after, d)
			}
		}
	}
}

func TestAnEndOfAnotherAttemptIsPrecededByItsText(t *testing.T) {
	b := setup(t, follow.Params{})
	id, older, newer := b.id(), fence(0, 1), fence(0, 2)
	live := b.join(id, event.QueuedID())
	b.claim(id, older, 1)
	b.say(id, older, 1, 2)
	b.claim(id, newer, 1)
	b.say(id, newer, 1, 1)
	seen := append(append([]string{"256-0 started "}, spoken(older, 1, 2)...), append([]string{"512-0 restart "}, spoken(newer, 1, 1)...)...)
	live.sees(seen...)
	b.endBy(id, task.Succeeded, older, &task.Output{Text: "12 and more"}) // it was slow, and won
	last := []string{event.LastRestartID(0).String() + " restart 12 and more", succeeded}
	live.sees(last...)
	live.isOver()
	for _, from := range []*bundle{b, b.restarted()} {
		for after, want := range map[event.ID][]string{
			event.QueuedID():       append(seen, last...),
			{Fence: newer, Seq: 1}: last,
			event.LastRestartID(0): last[1:],
			event.TerminalID(0):    nil,
		} {
			if d := cmp.Diff(want, from.watch(id, after, all)); d != "" {
				t.Errorf("resumed after %s: %s", after, d)
			}
		}
	}
	b.flush()
	if d := cmp.Diff([]string{"0-1 queued "}, b.until(id, event.ID{}, 1)); d != "" {
		t.Error(d)
	}
}

// until reads n events.
func (b *bundle) until(id task.ID, after event.ID, n int) (out []string) {
	b.t.Helper()
	r := b.join(id, after)
	for range n {
		e, err := r.c.Next(r.ctx)
		if err != nil {
			b.t.Fatal(err)
		}
		out = append(out, line(e))
	}
	return out
}

func TestAnEndThatNeedsNoRestartHasNone(t *testing.T) {
	b := setup(t, follow.Params{})
	f := fence(0, 1)
	for name, end := range map[string]func(id task.ID){
		"it is of the attempt that was shown": func(id task.ID) { b.endBy(id, task.Succeeded, f, &task.Output{Text: "12"}) },
		"it has no text":                      func(id task.ID) { b.endBy(id, task.Failed, fence(0, 2), nil) },
		"it is of no attempt":                 func(id task.ID) { b.end(id, task.Cancelled, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			id := b.id()
			b.claim(id, f, 1)
			b.say(id, f, 1, 2)
			end(id)
			got := b.watch(id, event.ID{Fence: f, Seq: 1}, all)
			if len(got) != 2 || got[0] != "256-2 delta 2" {
				t.Errorf("it saw %v", got)
			}
		})
	}
	t.Run("nothing was shown", func(t *testing.T) {
		id := b.id()
		b.endBy(id, task.Succeeded, f, &task.Output{Text: "12"})
		if d := cmp.Diff([]string{"0-1 queued ", succeeded}, b.watch(id, event.ID{}, all)); d != "" {
			t.Error(d)
		}
	})
}

func TestASnapshotOfANewAttemptIsAnnounced(t *testing.T) {
	b := setup(t, follow.Params{})
	log := eventlog.New(b.rdb, eventlog.Params{Partitions: partitions, MaxLen: 4})
	b.log = log
	id, older, newer := b.id(), fence(0, 1), fence(0, 2)
	b.claim(id, older, 1)
	b.say(id, older, 1, 2)
	b.claim(id, newer, 2)
	for seq := uint64(1); seq <= 8; seq++ {
		b.say(id, newer, seq, seq)
	}
	got := b.until(id, event.ID{Fence: older, Seq: 2}, 2)
	if got[0] != "512-0 restart " || got[1] == "" || got[1][:len("512-")] != "512-" {
		t.Errorf("it saw %v", got)
	}
}
