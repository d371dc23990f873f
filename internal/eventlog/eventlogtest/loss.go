package eventlogtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/topic"
)

// runLosses are the tests of what Redis loses, and of who may write it again.
func runLosses(t *testing.T, open Open) {
	t.Run("a lost end is seen, and not written over", func(t *testing.T) { seesLostTail(t, open) })
	t.Run("a claim that is lost is seen, though an older attempt's events are there", func(t *testing.T) { seesLostClaim(t, open) })
	t.Run("a gap may stand for what is not repeated", func(t *testing.T) { tellsGap(t, open) })
	t.Run("a gap that was folded away is still told", func(t *testing.T) { foldsGap(t, open) })
	t.Run("after a loss, too, a newer attempt refuses the older one", func(t *testing.T) { fencesAfterLoss(t, open) })
	t.Run("who was replaced in the middle of a fold changes nothing", func(t *testing.T) { fencesFold(t, open) })
}

func (b bundle) key() string {
	return rediskey.Events(topic.ResultsPartition(b.id, 12), b.id)
}

// keep makes the stream what it was after its first n entries, of which there is
// one at least, and the claim's count with it, as on a replica that had no more
// when it was promoted.
func (b bundle) keep(t *testing.T, n int64) {
	t.Helper()
	entries, err := b.rdb.XRangeN(t.Context(), b.key(), "-", "+", n).Result()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.rdb.Del(t.Context(), b.key()).Err(); err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		values := []any{"e", e.Values["e"]}
		if nonce, ok := e.Values["n"]; ok {
			values = append(values, "n", nonce)
		}
		if err := b.rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: b.key(), ID: e.ID, Values: values}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	b.recount(t)
}

func (b bundle) claimKey() string {
	return rediskey.Claim(topic.ResultsPartition(b.id, 12), b.id)
}

// top is the id of the stream's newest entry, and its writer's nonce; zero without one.
func (b bundle) top(t *testing.T) (id event.ID, nonce any) {
	t.Helper()
	entries, err := b.rdb.XRevRangeN(t.Context(), b.key(), "+", "-", 1).Result()
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) == 0 {
		return id, nil
	}
	if id, err = event.ParseID(entries[0].ID); err != nil {
		t.Fatal(err)
	}
	return id, entries[0].Values["n"]
}

// recount makes the claim count what its stream holds.
func (b bundle) recount(t *testing.T) {
	t.Helper()
	id, nonce := b.top(t)
	for _, count := range b.counts(t) {
		err := b.rdb.HDel(t.Context(), b.claimKey(), count).Err()
		if count == fmt.Sprint("q", nonce, id.Fence.Padded()) {
			err = b.rdb.HSet(t.Context(), b.claimKey(), count, id.Seq+1).Err()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// counts are the fields of the claim that say what its holder wrote last.
func (b bundle) counts(t *testing.T) (fields []string) {
	t.Helper()
	all, err := b.rdb.HKeys(t.Context(), b.claimKey()).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if strings.HasPrefix(name, "q") {
			fields = append(fields, name)
		}
	}
	return fields
}

func (b bundle) appendFails(t *testing.T, f event.Fence, from, to uint64, want error) {
	t.Helper()
	if err := b.log.Append(t.Context(), []eventlog.Append{deltas(b.id, f, from, to)})[0]; !errors.Is(err, want) {
		t.Errorf("append of %s from %d: %v, want %v", f, from, err, want)
	}
}

func seesLostTail(t *testing.T, open Open) {
	b := setup(t, open, eventlog.Params{})
	f := fence(t, 1, 0)
	b.claim(t, f, 1)
	b.append(t, f, 1, 5)
	b.keep(t, 4)
	for range 3 { // however often it is tried
		b.appendFails(t, f, 6, 6, eventlog.ErrVanished)
	}
	b.appendFails(t, f, 6, 7, eventlog.ErrVanished)
	b.claim(t, f, 1)
	b.append(t, f, 1, 7)
	got, trimmed := b.read(t, event.ID{Fence: f})
	want := []string{"256-1 delta 1.", "256-2 delta 2.", "256-3 delta 3.", "256-4 delta 4.", "256-5 delta 5.", "256-6 delta 6.", "256-7 delta 7."}
	if d := cmp.Diff(want, got); d != "" || trimmed {
		t.Errorf("trimmed %t, %s", trimmed, d)
	}
}

func seesLostClaim(t *testing.T, open Open) {
	b := setup(t, open, eventlog.Params{})
	older, newer := fence(t, 1, 0), fence(t, 2, 0)
	b.claim(t, older, 1)
	b.append(t, older, 1, 2)
	b.claim(t, newer, 2)
	b.append(t, newer, 1, 1)
	b.keep(t, 3)
	b.appendFails(t, newer, 2, 2, eventlog.ErrVanished)
	b.claim(t, newer, 2)
	b.append(t, newer, 1, 2)
	got, _ := b.read(t, event.ID{Fence: older, Seq: 2})
	if d := cmp.Diff([]string{"512-0 restart ", "512-1 delta 1.", "512-2 delta 2."}, got); d != "" {
		t.Error(d)
	}
}

// gapped is what a writer repeats that remembers only what comes after seq.
func gapped(b bundle, f event.Fence, seq, to uint64) eventlog.Append {
	a := deltas(b.id, f, seq+1, to)
	gap := event.Event{ID: event.ID{Fence: f, Seq: seq}, Type: event.Gap, TaskID: b.id, Reason: "lost"}
	a.Events = append([]event.Event{gap}, a.Events...)
	return a
}

func tellsGap(t *testing.T, open Open) {
	b := setup(t, open, eventlog.Params{})
	f := fence(t, 1, 0)
	b.claim(t, f, 1)
	if err := b.log.Append(t.Context(), []eventlog.Append{gapped(b, f, 3, 5)})[0]; err != nil {
		t.Fatal(err)
	}
	b.append(t, f, 6, 6)
	rest := []string{"256-4 delta 4.", "256-5 delta 5.", "256-6 delta 6."}
	for after, want := range map[event.ID][]string{
		{}:                 append([]string{"256-0 started ", "256-3 gap "}, rest...),
		{Fence: f, Seq: 1}: append([]string{"256-3 gap "}, rest...),
		{Fence: f, Seq: 3}: rest,
	} {
		got, trimmed := b.read(t, after)
		if d := cmp.Diff(want, got); d != "" || trimmed {
			t.Errorf("after %s: trimmed %t, %s", after, trimmed, d)
		}
	}
}

func foldsGap(t *testing.T, open Open) {
	b := setup(t, open, eventlog.Params{MaxLen: 8})
	f := fence(t, 1, 0)
	b.claim(t, f, 1)
	if err := b.log.Append(t.Context(), []eventlog.Append{gapped(b, f, 3, 12)})[0]; err != nil {
		t.Fatal(err)
	}
	events, trimmed, err := b.log.Read(t.Context(), b.id, event.ID{}, 100)
	if err != nil || trimmed || events[0].Type != event.Gap || events[0].Text != "" || events[0].Reason == "" {
		t.Errorf("trimmed %t, %v, %+v", trimmed, err, events)
	}
}

func fencesAfterLoss(t *testing.T, open Open) {
	b := setup(t, open, eventlog.Params{})
	next := b.other()
	older, newer := fence(t, 1, 0), fence(t, 2, 0)
	b.claim(t, older, 1)
	b.append(t, older, 1, 2)
	if err := b.rdb.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	next.claim(t, newer, 2)
	b.appendFails(t, older, 3, 3, eventlog.ErrFenced)
	if err := b.log.Claim(t.Context(), eventlog.Claim{ID: b.id, Fence: older, Insist: true}); !errors.Is(err, eventlog.ErrFenced) {
		t.Errorf("claim: %v", err)
	}
	next.append(t, newer, 1, 1)
	got, _ := b.read(t, event.ID{})
	if d := cmp.Diff([]string{"512-0 restart ", "512-1 delta 1."}, got); d != "" {
		t.Error(d)
	}
}

// interrupter calls once, before the first command that it is told to.
type interrupter struct {
	before string
	once   func()
}

func (i *interrupter) DialHook(next redis.DialHook) redis.DialHook { return next }

func (i *interrupter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (i *interrupter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if call := i.once; call != nil && cmd.Name() == i.before {
			i.once = nil
			call()
		}
		return next(ctx, cmd)
	}
}

func fencesFold(t *testing.T, open Open) {
	for name, takeOver := range map[string]func(b, next bundle){
		"its successor writes": func(_, next bundle) {
			next.take(t, eventlog.Claim{Fence: fence(t, 2, 0), Attempt: 2, Insist: true})
		},
		"its successor writes after a loss": func(b, next bundle) {
			if err := b.rdb.FlushDB(t.Context()).Err(); err != nil {
				t.Error(err)
			}
			next.take(t, eventlog.Claim{Fence: fence(t, 2, 0), Attempt: 2, Insist: true})
		},
		"what it folded was lost": func(b, _ bundle) { b.keep(t, 2) },
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t, open, eventlog.Params{MaxLen: 8})
			f := fence(t, 1, 0)
			b.claim(t, f, 1)
			b.append(t, f, 1, 7)
			stop := &interrupter{before: "evalsha", once: func() { takeOver(b, b.other()) }}
			b.rdb.AddHook(stop)
			b.append(t, f, 8, 8) // too long now
			if n, err := b.rdb.Exists(t.Context(), rediskey.Snapshot(topic.ResultsPartition(b.id, 12), b.id)).Result(); err != nil || n != 0 {
				t.Errorf("it folded: %d snapshots, %v", n, err)
			}
			if stop.once != nil {
				t.Error("nobody took over")
			}
		})
	}
}
