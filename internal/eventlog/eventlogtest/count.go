package eventlogtest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/schema/event"
)

// countsWell does the same to two tasks: whatever two writers, losses and ends
// make of them, the one whose claims count shows what the other shows, whose counts
// are taken away before each step, so that its stream is always asked.
func countsWell(t *testing.T, open Open) {
	first := setup(t, open, eventlog.Params{MaxLen: 8})
	rapid.Check(t, func(rt *rapid.T) {
		if err := first.rdb.FlushDB(t.Context()).Err(); err != nil {
			rt.Fatal(err)
		}
		counted, asked := first.twins(t), first.twins(t)
		rt.Repeat(map[string]func(*rapid.T){
			"": func(rt *rapid.T) {
				if d := cmp.Diff(asked.entries(t), counted.entries(t)); d != "" {
					rt.Fatalf("the stream of the task that counts (+) is another: %s", d)
				}
			},
			"step": func(rt *rapid.T) {
				who, do := rapid.IntRange(0, 1).Draw(rt, "writer"), step(rt)
				asked.forget(t)
				want, got := do(t, asked[who]), do(t, counted[who])
				if !errors.Is(got, want) {
					rt.Fatalf("%v, want %v", got, want)
				}
			},
		})
	})
}

// leavesNothing writes when nobody holds the task any more, and claims it in turn.
func leavesNothing(t *testing.T, open Open) {
	a := setup(t, open, eventlog.Params{})
	f := fence(t, 1, 0)
	a.claim(t, f, 1)
	if err := a.log.Release(t.Context(), []eventlog.Hold{{ID: a.id, Fence: f}}); err != nil {
		t.Fatal(err)
	}
	a.append(t, f, 1, 1)
	if a.exists(t) {
		t.Error("what came after the release made a claim, and nobody will release that")
	}
	for try := range 3 {
		a.other().wants(t, eventlog.Claim{Fence: fence(t, 2, try), Insist: true}, 0, nil)
	}
	if counts := a.counts(t); len(counts) != 1 {
		t.Errorf("the claim counts %q, of which only its holder's is of use", counts)
	}
}

// twins are two writers of one task.
type twins [2]bundle

// twins are two that write a new task.
func (b bundle) twins(t *testing.T) (w twins) {
	t.Helper()
	id := newID(t)
	for i := range w {
		w[i] = bundle{b.rdb, eventlog.New(b.rdb, eventlog.Params{MaxLen: 8}), id}
	}
	return w
}

func (w twins) forget(t *testing.T) {
	t.Helper()
	if fields := w[0].counts(t); len(fields) > 0 {
		if err := w[0].rdb.HDel(t.Context(), w[0].claimKey(), fields...).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// entries are the ids of what the stream holds, and which of the two wrote each.
func (w twins) entries(t *testing.T) (out []string) {
	t.Helper()
	all, err := w[0].rdb.XRange(t.Context(), w[0].key(), "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	writers := map[any]int{}
	for _, e := range all {
		nonce := e.Values["n"]
		if _, seen := writers[nonce]; !seen {
			writers[nonce] = len(writers)
		}
		out = append(out, fmt.Sprint(e.ID, " by ", writers[nonce]))
	}
	return out
}

// known are the errors that an operation may end with.
func known(err error) error {
	for _, is := range []error{eventlog.ErrFenced, eventlog.ErrVanished, eventlog.ErrHeld, eventlog.ErrBarred} {
		if errors.Is(err, is) {
			return is
		}
	}
	return err
}

// step draws something that may happen to a task.
func step(rt *rapid.T) func(*testing.T, bundle) error {
	f := event.Fence(256 * rapid.IntRange(1, 2).Draw(rt, "fence"))
	from := rapid.Uint64Range(1, 5).Draw(rt, "from")
	to := from + rapid.Uint64Range(0, 2).Draw(rt, "more")
	kept := rapid.Int64Range(1, 6).Draw(rt, "kept")
	switch rapid.SampledFrom([]string{"claim", "append", "append", "append", "append", "gap", "next", "next", "next", "lose", "flush", "release", "end"}).Draw(rt, "what") {
	case "claim":
		return func(t *testing.T, b bundle) error {
			return known(b.log.Claim(t.Context(), eventlog.Claim{ID: b.id, Fence: f, Attempt: 1, Insist: true}))
		}
	case "append":
		return func(t *testing.T, b bundle) error {
			return known(b.log.Append(t.Context(), []eventlog.Append{deltas(b.id, f, from, to)})[0])
		}
	case "gap":
		return func(t *testing.T, b bundle) error {
			return known(b.log.Append(t.Context(), []eventlog.Append{gapped(b, f, from, to)})[0])
		}
	case "next": // what a writer does that nothing happened to
		return func(t *testing.T, b bundle) error {
			at, _ := b.top(t)
			if at.Fence.Terminal() {
				return nil
			}
			return known(b.log.Append(t.Context(), []eventlog.Append{deltas(b.id, at.Fence, at.Seq+1, at.Seq+1+to-from)})[0])
		}
	case "lose":
		return func(t *testing.T, b bundle) error {
			if b.length(t) > kept {
				b.keep(t, kept)
			}
			return nil
		}
	case "flush":
		return func(t *testing.T, b bundle) error {
			return b.rdb.Del(t.Context(), b.key(), b.claimKey()).Err()
		}
	case "release":
		return func(t *testing.T, b bundle) error {
			return b.log.Release(t.Context(), []eventlog.Hold{{ID: b.id, Fence: f, Ended: kept%2 == 0}})
		}
	default:
		return func(t *testing.T, b bundle) error {
			id := event.TerminalID(0).String()
			_ = b.rdb.XAdd(t.Context(), &redis.XAddArgs{Stream: b.key(), ID: id, Values: []string{"e", `{"type":"cancelled"}`}}).Err() // refused if it is there
			return nil
		}
	}
}
