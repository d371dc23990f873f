// Package eventlogtest is the conformance suite of the event log: the same
// tests against the Redis of the tests and against a real one.
package eventlogtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
)

// Open returns a client of an empty Redis that the test owns.
type Open func(t *testing.T) redis.UniversalClient

type bundle struct {
	rdb redis.UniversalClient
	log *eventlog.Log
	id  task.ID
}

func setup(t *testing.T, open Open, p eventlog.Params) bundle {
	t.Helper()
	rdb := open(t)
	if err := rdb.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	return bundle{rdb, eventlog.New(rdb, p), newID(t)}
}

// newID is the id of a task that nothing is known of.
func newID(t *testing.T) task.ID {
	t.Helper()
	minter, err := task.NewMinter(task.Secret{Key: []byte("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	return minter.New("acme", time.Now())
}

func fence(t *testing.T, group int32, try int) event.Fence {
	t.Helper()
	f, err := event.NewFence(0, 0, group, try)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func deltas(id task.ID, f event.Fence, from, to uint64) eventlog.Append {
	a := eventlog.Append{ID: id}
	for seq := from; seq <= to; seq++ {
		a.Events = append(a.Events, event.Event{
			ID: event.ID{Fence: f, Seq: seq}, Type: event.Delta, TaskID: id, Text: fmt.Sprintf("%d\n", seq),
		})
	}
	return a
}

func (b bundle) claim(t *testing.T, f event.Fence, attempt int) {
	t.Helper()
	if err := b.log.Claim(t.Context(), eventlog.Claim{ID: b.id, Fence: f, Attempt: attempt}); err != nil {
		t.Fatal(err)
	}
}

func (b bundle) append(t *testing.T, f event.Fence, from, to uint64) {
	t.Helper()
	if err := b.log.Append(t.Context(), []eventlog.Append{deltas(b.id, f, from, to)})[0]; err != nil {
		t.Fatal(err)
	}
}

func (b bundle) read(t *testing.T, after event.ID) ([]string, bool) {
	t.Helper()
	events, trimmed, err := b.log.Read(t.Context(), b.id, after, 1000)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]string, len(events))
	for i, e := range events {
		out[i] = fmt.Sprintf("%s %s %s", e.ID, e.Type, strings.ReplaceAll(e.Text, "\n", "."))
	}
	return out, trimmed
}

// Run runs the suite.
func Run(t *testing.T, open Open) {
	t.Run("an attempt's events are read back in order, after any id", func(t *testing.T) { reads(t, open) })
	t.Run("a newer attempt refuses the older one", func(t *testing.T) { fences(t, open) })
	t.Run("a call repeated after a lost reply changes nothing", func(t *testing.T) { repeats(t, open) })
	t.Run("another writer under the same fence is refused", func(t *testing.T) { refusesTwins(t, open) })
	t.Run("a lost stream is told, not made anew", func(t *testing.T) { vanishes(t, open) })
	t.Run("nothing is written after the end", func(t *testing.T) { ends(t, open) })
	t.Run("the newest attempt is known, also once its task has ended", func(t *testing.T) { findsNewest(t, open) })
	t.Run("the first event after what was heard is known, of many tasks at once", func(t *testing.T) { findsNext(t, open) })
	t.Run("a long stream is folded into a snapshot", func(t *testing.T) { folds(t, open) })
	t.Run("a snapshot never joins the text of two attempts", func(t *testing.T) { foldsApart(t, open) })
	t.Run("what is not text alone is folded into a gap", func(t *testing.T) { foldsChoices(t, open) })
	t.Run("a lost head is told", func(t *testing.T) { tellsLoss(t, open) })
	t.Run("a watcher receives what is written after it is ready", func(t *testing.T) { watches(t, open) })
	t.Run("one batch serves many tasks, each with its own outcome", func(t *testing.T) { batches(t, open) })
	runClaims(t, open)
	runLosses(t, open)
	t.Run("what a claim counts goes with its holder", func(t *testing.T) { leavesNothing(t, open) })
	t.Run("what the claim counts is what the stream holds", func(t *testing.T) { countsWell(t, open) })
}

func reads(t *testing.T, open Open) {
	b := setup(t, open, eventlog.Params{})
	f := fence(t, 1, 0)
	b.claim(t, f, 1)
	b.append(t, f, 1, 3)
	for after, want := range map[event.ID][]string{
		{}:                 {"256-0 started ", "256-1 delta 1.", "256-2 delta 2.", "256-3 delta 3."},
		event.QueuedID():   {"256-0 started ", "256-1 delta 1.", "256-2 delta 2.", "256-3 delta 3."},
		{Fence: f, Seq: 2}: {"256-3 delta 3."},
		{Fence: f, Seq: 3}: {},
	} {
		got, trimmed := b.read(t, after)
		if d := cmp.Diff(want, got); d != "" || trimmed {
			t.Errorf("after %s: trimmed %v, %s", after, trimmed, d)
		}
	}
}

func fences(t *testing.T, open Open) {
	b := setup(t, open, eventlog.Params{})
	older, newer := fence(t, 1, 0), fence(t, 2, 0)
	b.claim(t, older, 1)
	b.append(t, older, 1, 1)
	b.claim(t, newer, 2)
	err := b.log.Append(t.Context(), []eventlog.Append{deltas(b.id, older, 2, 2)})[0]
	if !errors.Is(err, eventlog.ErrFenced) {
		t.Errorf("the zombie's append: %v", err)
	}
	if err := b.log.Claim(t.Context(), eventlog.Claim{ID: b.id, Fence: older}); err != nil {
		t.Errorf("the claim it made before, repeated: %v", err)
	}
	late := eventlog.Claim{ID: b.id, Fence: fence(t, 1, 5)}
	if err := b.log.Claim(t.Context(), late); !errors.Is(err, eventlog.ErrFenced) {
		t.Errorf("a late claim under an older fence: %v", err)
	}
	got, _ := b.read(t, event.ID{})
	if d := cmp.Diff([]string{"256-0 started ", "256-1 delta 1.", "512-0 restart "}, got); d != "" {
		t.Error(d)
	}
}

func repeats(t *testing.T, open Open) {
	b := setup(t, open, eventlog.Params{})
	f := fence(t, 1, 0)
	b.claim(t, f, 1)
	b.claim(t, f, 1)
	b.append(t, f, 1, 2)
	b.append(t, f, 1, 3)
	b.claim(t, f, 1)
	got, _ := b.read(t, event.ID{})
	if d := cmp.Diff([]string{"256-0 started ", "256-1 delta 1.", "256-2 delta 2.", "256-3 delta 3."}, got); d != "" {
		t.Error(d)
	}
}

func refusesTwins(t *testing.T, open Open) {
	b := setup(t, open, eventlog.Params{})
	f := fence(t, 1, 0)
	b.claim(t, f, 1)
	b.append(t, f, 1, 1)
	twin := eventlog.New(b.rdb, eventlog.Params{})
	if err := twin.Claim(t.Context(), eventlog.Claim{ID: b.id, Fence: f, Insist: true}); !errors.Is(err, eventlog.ErrFenced) {
		t.Errorf("claim: %v", err)
	}
	if err := twin.Append(t.Context(), []eventlog.Append{deltas(b.id, f, 1, 1)})[0]; !errors.Is(err, eventlog.ErrFenced) {
		t.Errorf("append: %v", err)
	}
}

func vanishes(t *testing.T, open Open) {
	b := setup(t, open, eventlog.Params{})
	f := fence(t, 1, 0)
	b.claim(t, f, 1)
	if err := b.rdb.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if err := b.log.Append(t.Context(), []eventlog.Append{deltas(b.id, f, 1, 1)})[0]; !errors.Is(err, eventlog.ErrVanished) {
		t.Errorf("append: %v", err)
	}
	b.claim(t, f, 1)
	b.append(t, f, 1, 1)
}

func ends(t *testing.T, open Open) {
	b := setup(t, open, eventlog.Params{})
	f := fence(t, 1, 0)
	b.claim(t, f, 1)
	key := rediskey.Events(topic.ResultsPartition(b.id, 12), b.id)
	err := b.rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: key, ID: event.TerminalID(0).String(), Values: []string{"e", `{"type":"cancelled"}`}}).Err()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.log.Append(t.Context(), []eventlog.Append{deltas(b.id, f, 1, 1)})[0]; !errors.Is(err, eventlog.ErrFenced) {
		t.Errorf("append: %v", err)
	}
	if err := b.log.Claim(t.Context(), eventlog.Claim{ID: b.id, Fence: fence(t, 9, 0)}); !errors.Is(err, eventlog.ErrFenced) {
		t.Errorf("claim: %v", err)
	}
	next, err := event.NewFence(1, 0, 9, 0)
	if err != nil {
		t.Fatal(err)
	}
	b.claim(t, next, 1) // of the next generation
}

func findsNewest(t *testing.T, open Open) {
	b := setup(t, open, eventlog.Params{})
	newest := func(want event.Fence) {
		t.Helper()
		if got, err := b.log.Newest(t.Context(), b.id); got != want || err != nil {
			t.Errorf("the newest is %s, %v; want %s", got, err, want)
		}
	}
	newest(0)
	first, second := fence(t, 1, 0), fence(t, 1, 1)
	b.claim(t, first, 1)
	b.append(t, first, 1, 3)
	newest(first)
	b.claim(t, second, 2)
	newest(second)
	key := rediskey.Events(topic.ResultsPartition(b.id, 12), b.id)
	if err := b.rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: key, ID: event.TerminalID(0).String(), Values: []string{"e", `{"type":"succeeded"}`}}).Err(); err != nil {
		t.Fatal(err)
	}
	newest(second)
}

func findsNext(t *testing.T, open Open) {
	b := setup(t, open, eventlog.Params{})
	f := fence(t, 1, 0)
	places := []event.ID{{}, event.QueuedID(), {Fence: f}, {Fence: f, Seq: 2}, {Fence: f, Seq: 3}, event.TerminalID(0)}
	want := []string{"256-0", "256-0", "256-1", "256-3", "0-0", "0-0"}
	var at []eventlog.Range
	var all []string
	for range 10 { // over all partitions, and of every second nothing is there
		for i, after := range places {
			lost, there := newID(t), newID(t)
			bundle{b.rdb, b.log, there}.claim(t, f, 1)
			bundle{b.rdb, b.log, there}.append(t, f, 1, 3)
			at = append(at, eventlog.Range{ID: lost, After: after}, eventlog.Range{ID: there, After: after})
			all = append(all, "0-0", want[i])
		}
	}
	got, err := b.log.Nexts(t.Context(), at)
	if err != nil || len(got) != len(at) {
		t.Fatalf("%d answers to %d: %v", len(got), len(at), err)
	}
	for i, id := range got {
		if id.String() != all[i] {
			t.Errorf("after %s comes %s, want %s", at[i].After, id, all[i])
		}
	}
	if none, err := b.log.Nexts(t.Context(), nil); err != nil || len(none) != 0 {
		t.Errorf("of nothing: %v, %v", none, err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.log.Nexts(gone, at); err == nil {
		t.Error("a Redis that cannot be asked is taken for one without events")
	}
}

func folds(t *testing.T, open Open) {
	b := setup(t, open, eventlog.Params{MaxLen: 8})
	f := fence(t, 1, 0)
	b.claim(t, f, 1)
	text := ""
	for seq := uint64(1); seq <= 40; seq++ {
		b.append(t, f, seq, seq)
		text += fmt.Sprintf("%d\n", seq)
		if n := b.length(t); n > 8 {
			t.Fatalf("stream holds %d entries", n)
		}
	}
	events, trimmed, err := b.log.Read(t.Context(), b.id, event.ID{}, 100)
	if err != nil || trimmed || events[0].Type != event.Snapshot || events[0].TaskID != b.id {
		t.Fatalf("read %+v, trimmed %v, %v", events, trimmed, err)
	}
	got := ""
	for _, e := range events {
		got += e.Text
	}
	if got != text {
		t.Errorf("the text so far is %q, want %q", got, text)
	}
	snap := events[0].ID
	if rest, trimmed := b.read(t, snap); trimmed || len(rest) != int(40-snap.Seq) {
		t.Errorf("after the snapshot: %v, trimmed %v", rest, trimmed)
	}
	if rest, trimmed := b.read(t, event.ID{Fence: f, Seq: 3}); trimmed || !strings.Contains(rest[0], "snapshot") {
		t.Errorf("after a folded event: %v, trimmed %v", rest, trimmed)
	}
}

func (b bundle) length(t *testing.T) int64 {
	t.Helper()
	n, err := b.rdb.XLen(t.Context(), rediskey.Events(topic.ResultsPartition(b.id, 12), b.id)).Result()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func foldsApart(t *testing.T, open Open) {
	b := setup(t, open, eventlog.Params{MaxLen: 8})
	older, newer := fence(t, 1, 0), fence(t, 2, 0)
	b.claim(t, older, 1)
	b.append(t, older, 1, 2)
	b.claim(t, newer, 2)
	b.append(t, newer, 1, 9)
	events, trimmed, err := b.log.Read(t.Context(), b.id, event.ID{}, 100)
	if err != nil || trimmed || events[0].Type != event.Snapshot || events[0].ID.Fence != newer || events[0].Attempt != 2 {
		t.Fatalf("read %+v, trimmed %v, %v", events, trimmed, err)
	}
	got := ""
	for _, e := range events {
		got += e.Text
	}
	if want := "1\n2\n3\n4\n5\n6\n7\n8\n9\n"; got != want {
		t.Errorf("text %q, want %q", got, want)
	}
}

func foldsChoices(t *testing.T, open Open) {
	b := setup(t, open, eventlog.Params{MaxLen: 8})
	f := fence(t, 1, 0)
	b.claim(t, f, 1)
	called := event.Event{ID: event.ID{Fence: f, Seq: 1}, Type: event.Delta, TaskID: b.id, Choice: []byte(`{"delta":{"tool_calls":[]}}`)}
	if err := b.log.Append(t.Context(), []eventlog.Append{{ID: b.id, Events: []event.Event{called}}})[0]; err != nil {
		t.Fatal(err)
	}
	if events, _, err := b.log.Read(t.Context(), b.id, event.ID{}, 100); err != nil || string(events[1].Choice) != string(called.Choice) {
		t.Fatalf("read %+v, %v", events, err)
	}
	b.append(t, f, 2, 12)
	events, trimmed, err := b.log.Read(t.Context(), b.id, event.ID{}, 100)
	if err != nil || trimmed || events[0].Type != event.Gap || events[0].Text != "" || events[0].Reason == "" {
		t.Errorf("trimmed %t, %v, %+v", trimmed, err, events)
	}
}

func tellsLoss(t *testing.T, open Open) {
	b := setup(t, open, eventlog.Params{})
	f := fence(t, 1, 0)
	b.claim(t, f, 1)
	b.append(t, f, 1, 5)
	key := rediskey.Events(topic.ResultsPartition(b.id, 12), b.id)
	if err := b.rdb.XTrimMinID(t.Context(), key, "256-4").Err(); err != nil {
		t.Fatal(err)
	}
	for after, lost := range map[event.ID]bool{{}: true, {Fence: f, Seq: 2}: true, {Fence: f, Seq: 3}: false} {
		if _, trimmed := b.read(t, after); trimmed != lost {
			t.Errorf("after %s: trimmed %v, want %v", after, trimmed, lost)
		}
	}
}

func watches(t *testing.T, open Open) {
	b := setup(t, open, eventlog.Params{})
	f := fence(t, 1, 0)
	b.claim(t, f, 1)
	live := b.log.Live()
	defer live.Close()
	if err := live.Watch(t.Context(), []task.ID{b.id}); err != nil {
		t.Fatal(err)
	}
	n, err := live.Receive(t.Context())
	if err != nil || !n.Ready || n.Task != b.id {
		t.Fatalf("received %+v, %v; want ready", n, err)
	}
	b.append(t, f, 1, 2)
	for seq := uint64(1); seq <= 2; seq++ {
		n, err := live.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		e, err := n.Entry.Event()
		if err != nil || n.Ready || e.ID != (event.ID{Fence: f, Seq: seq}) || e.Type != n.Entry.Type() || e.TaskID != b.id {
			t.Errorf("received %+v: %+v, %v", n, e, err)
		}
	}
	if err := live.Unwatch(t.Context(), []task.ID{b.id}); err != nil {
		t.Fatal(err)
	}
}

func batches(t *testing.T, open Open) {
	b := setup(t, open, eventlog.Params{})
	f := fence(t, 3, 0)
	var claims []eventlog.Claim
	var appends []eventlog.Append
	for range 50 {
		id := newID(t)
		claims = append(claims, eventlog.Claim{ID: id, Fence: f, Attempt: 1})
		appends = append(appends, deltas(id, f, 1, 2))
	}
	for _, g := range b.log.ClaimAll(t.Context(), claims[1:]) {
		if g.Err != nil {
			t.Fatal(g.Err)
		}
	}
	for i, err := range b.log.Append(t.Context(), appends) {
		if (i == 0) != errors.Is(err, eventlog.ErrVanished) || (i > 0 && err != nil) {
			t.Errorf("task %d: %v", i, err)
		}
	}
	ranges := make([]eventlog.Range, len(claims))
	for i, c := range claims {
		ranges[i] = eventlog.Range{ID: c.ID}
	}
	histories, err := b.log.ReadMany(t.Context(), ranges)
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range histories {
		if want := min(i, 1) * 3; len(h.Entries) != want {
			t.Errorf("task %d has %d entries, want %d", i, len(h.Entries), want)
		}
	}
}
