package eventlogtest

import (
	"errors"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/schema/event"
)

// runClaims are the tests of who runs a task and what was lost.
func runClaims(t *testing.T, open Open) {
	t.Run("a claim that beats keeps others off, unless they insist", func(t *testing.T) { keepsOff(t, open) })
	t.Run("a claim without a beat is one loss, told once", func(t *testing.T) { countsOnce(t, open) })
	t.Run("from the second loss on the record must tell of it", func(t *testing.T) { bars(t, open) })
	t.Run("a record knows more than an empty store", func(t *testing.T) { believesRecord(t, open) })
	t.Run("what is released is no loss, and is free", func(t *testing.T) { releases(t, open) })
	t.Run("what has ended is no loss, and is free after a while", func(t *testing.T) { endsClaims(t, open) })
	t.Run("a claim of another hop or generation is no loss", func(t *testing.T) { scopes(t, open) })
	t.Run("a former holder changes nothing", func(t *testing.T) { ignoresFormer(t, open) })
	t.Run("what beats is kept, and by its holder alone", func(t *testing.T) { keepsAlive(t, open) })
	t.Run("a worker's own claim is no loss", func(t *testing.T) { trustsItself(t, open) })
}

// other is another worker on the same store.
func (b bundle) other() bundle {
	return bundle{b.rdb, eventlog.New(b.rdb, eventlog.Params{}), b.id}
}

func (b bundle) take(t *testing.T, c eventlog.Claim) eventlog.Grant {
	t.Helper()
	c.ID = b.id
	return b.log.ClaimAll(t.Context(), []eventlog.Claim{c})[0]
}

// wants claims and checks the answer.
func (b bundle) wants(t *testing.T, c eventlog.Claim, losses int, err error) eventlog.Grant {
	t.Helper()
	g := b.take(t, c)
	if g.Losses != losses || !errors.Is(g.Err, err) || (err == nil) != (g.Err == nil) {
		t.Fatalf("claim of %s: %d losses, %v; want %d, %v", c.Fence, g.Losses, g.Err, losses, err)
	}
	return g
}

// silence makes the claim look as if its holder had been silent for longer.
func (b bundle) silence(t *testing.T, d time.Duration) {
	t.Helper()
	if err := b.rdb.HIncrBy(t.Context(), b.claimKey(), "b", -d.Milliseconds()).Err(); err != nil {
		t.Fatal(err)
	}
}

func (b bundle) exists(t *testing.T) bool {
	t.Helper()
	n, err := b.rdb.Exists(t.Context(), b.claimKey()).Result()
	if err != nil {
		t.Fatal(err)
	}
	return n == 1
}

func keepsOff(t *testing.T, open Open) {
	a := setup(t, open, eventlog.Params{})
	b := a.other()
	a.wants(t, eventlog.Claim{Fence: fence(t, 1, 0)}, 0, nil)
	a.silence(t, 2*time.Second)
	b.wants(t, eventlog.Claim{Fence: fence(t, 2, 0)}, 0, eventlog.ErrHeld)
	if events, _ := b.read(t, event.ID{}); len(events) != 1 {
		t.Errorf("a claim that was refused wrote events: %v", events)
	}
	a.silence(t, 2*time.Second)
	if err := a.log.Beat(t.Context(), []eventlog.Hold{{ID: a.id, Fence: fence(t, 1, 0)}}); err != nil {
		t.Fatal(err)
	}
	b.wants(t, eventlog.Claim{Fence: fence(t, 2, 0)}, 0, eventlog.ErrHeld)
	b.wants(t, eventlog.Claim{Fence: fence(t, 2, 0), Insist: true}, 0, nil)
	a.wants(t, eventlog.Claim{Fence: fence(t, 1, 1)}, 0, eventlog.ErrHeld)
}

func countsOnce(t *testing.T, open Open) {
	a := setup(t, open, eventlog.Params{})
	b := a.other()
	a.wants(t, eventlog.Claim{Fence: fence(t, 1, 3), Worker: "gpu-1"}, 0, nil)
	a.silence(t, 4*time.Second)
	g := b.wants(t, eventlog.Claim{Fence: fence(t, 2, 0)}, 1, nil)
	if g.Lost == nil || g.Lost.Fence != fence(t, 1, 3) || g.Lost.Worker != "gpu-1" || g.Lost.Claimed.Sub(g.Lost.Beat) != 4*time.Second {
		t.Errorf("lost claim %+v", g.Lost)
	}
	if g := b.wants(t, eventlog.Claim{Fence: fence(t, 2, 0)}, 1, nil); g.Lost != nil {
		t.Errorf("told again: %+v", g.Lost)
	}
}

func bars(t *testing.T, open Open) {
	a := setup(t, open, eventlog.Params{})
	b := a.other()
	a.wants(t, eventlog.Claim{Fence: fence(t, 1, 0)}, 0, nil)
	a.silence(t, 4*time.Second)
	b.wants(t, eventlog.Claim{Fence: fence(t, 2, 0)}, 1, nil)
	b.silence(t, 4*time.Second)
	c := a.other()
	if g := c.wants(t, eventlog.Claim{Fence: fence(t, 3, 0)}, 2, eventlog.ErrBarred); g.Lost == nil {
		t.Error("the second loss is not told")
	}
	c.wants(t, eventlog.Claim{Fence: fence(t, 3, 1)}, 2, eventlog.ErrBarred) // the record still does not say so
	c.wants(t, eventlog.Claim{Fence: hopFence(t, 0, 1, 4), Losses: 2}, 2, nil)
	c.silence(t, 4*time.Second)
	a.wants(t, eventlog.Claim{Fence: hopFence(t, 0, 1, 5), Losses: 2}, 3, eventlog.ErrBarred)
	a.wants(t, eventlog.Claim{Fence: hopFence(t, 0, 1, 6), Losses: 2}, 3, eventlog.ErrBarred)
}

func hopFence(t *testing.T, generation uint8, hop uint16, group int32) event.Fence {
	t.Helper()
	f, err := event.NewFence(generation, hop, group, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func believesRecord(t *testing.T, open Open) {
	a := setup(t, open, eventlog.Params{})
	a.wants(t, eventlog.Claim{Fence: hopFence(t, 0, 2, 1), Losses: 2}, 2, nil)
	if err := a.rdb.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	a.other().wants(t, eventlog.Claim{Fence: hopFence(t, 0, 2, 2), Losses: 2}, 2, nil)
}

func releases(t *testing.T, open Open) {
	a := setup(t, open, eventlog.Params{})
	f := fence(t, 1, 0)
	a.wants(t, eventlog.Claim{Fence: f}, 0, nil)
	for range 2 {
		if err := a.log.Release(t.Context(), []eventlog.Hold{{ID: a.id, Fence: f}}); err != nil {
			t.Fatal(err)
		}
	}
	if a.exists(t) {
		t.Error("a claim without losses is kept after its release")
	}
	b := a.other()
	b.wants(t, eventlog.Claim{Fence: fence(t, 2, 0)}, 0, nil)
	b.silence(t, 4*time.Second)
	c := a.other()
	c.wants(t, eventlog.Claim{Fence: fence(t, 3, 0)}, 1, nil)
	if err := c.log.Release(t.Context(), []eventlog.Hold{{ID: c.id, Fence: fence(t, 3, 0)}}); err != nil {
		t.Fatal(err)
	}
	c.silence(t, 4*time.Second)
	a.wants(t, eventlog.Claim{Fence: fence(t, 4, 0)}, 1, nil) // the count survives the release, and does not rise
}

func endsClaims(t *testing.T, open Open) {
	a := setup(t, open, eventlog.Params{})
	f := fence(t, 1, 0)
	a.wants(t, eventlog.Claim{Fence: f}, 0, nil)
	if err := a.log.Release(t.Context(), []eventlog.Hold{{ID: a.id, Fence: f, Ended: true}}); err != nil {
		t.Fatal(err)
	}
	b := a.other()
	b.wants(t, eventlog.Claim{Fence: fence(t, 2, 0)}, 0, eventlog.ErrHeld)
	b.wants(t, eventlog.Claim{Fence: hopFence(t, 1, 1, 2)}, 0, nil) // a redrive does not wait for the end before it
	a.wants(t, eventlog.Claim{Fence: fence(t, 1, 1)}, 0, eventlog.ErrFenced)

	a = setup(t, open, eventlog.Params{})
	a.wants(t, eventlog.Claim{Fence: f}, 0, nil)
	if err := a.log.Release(t.Context(), []eventlog.Hold{{ID: a.id, Fence: f, Ended: true}}); err != nil {
		t.Fatal(err)
	}
	a.silence(t, 4*time.Second)
	a.other().wants(t, eventlog.Claim{Fence: fence(t, 2, 0)}, 0, nil)
}

func scopes(t *testing.T, open Open) {
	a := setup(t, open, eventlog.Params{})
	a.wants(t, eventlog.Claim{Fence: hopFence(t, 0, 0, 9)}, 0, nil)
	a.silence(t, 4*time.Second)
	b := a.other()
	b.wants(t, eventlog.Claim{Fence: hopFence(t, 0, 1, 3)}, 0, nil) // published again: the first hop had its outcome
	b.silence(t, 4*time.Second)
	// A copy of the earlier hop: its claim is refused, the newer one stays to be found.
	a.wants(t, eventlog.Claim{Fence: hopFence(t, 0, 0, 10)}, 0, eventlog.ErrFenced)
	a.wants(t, eventlog.Claim{Fence: hopFence(t, 0, 1, 4)}, 1, nil)
	a.silence(t, 4*time.Second)
	b.wants(t, eventlog.Claim{Fence: hopFence(t, 1, 2, 5)}, 0, nil) // each generation counts from zero
	a.wants(t, eventlog.Claim{Fence: hopFence(t, 0, 1, 6)}, 0, eventlog.ErrFenced)
}

func ignoresFormer(t *testing.T, open Open) {
	a := setup(t, open, eventlog.Params{})
	b := a.other()
	old := eventlog.Hold{ID: a.id, Fence: fence(t, 1, 0)}
	a.wants(t, eventlog.Claim{Fence: old.Fence}, 0, nil)
	a.silence(t, 4*time.Second)
	b.wants(t, eventlog.Claim{Fence: fence(t, 2, 0)}, 1, nil)
	b.silence(t, 4*time.Second)
	for _, h := range []eventlog.Hold{old, {ID: a.id, Fence: fence(t, 2, 0)}} { // not under its nonce either
		if err := errors.Join(a.log.Beat(t.Context(), []eventlog.Hold{h}), a.log.Release(t.Context(), []eventlog.Hold{h})); err != nil {
			t.Fatal(err)
		}
	}
	a.other().wants(t, eventlog.Claim{Fence: fence(t, 3, 0)}, 2, eventlog.ErrBarred)
	if err := b.log.Beat(t.Context(), []eventlog.Hold{{ID: b.id, Fence: fence(t, 2, 0)}}); err != nil {
		t.Fatal(err)
	}
	a.other().wants(t, eventlog.Claim{Fence: fence(t, 4, 0)}, 2, eventlog.ErrBarred) // the beat made no claim anew
}

func trustsItself(t *testing.T, open Open) {
	a := setup(t, open, eventlog.Params{})
	a.wants(t, eventlog.Claim{Fence: fence(t, 1, 0)}, 0, nil)
	a.silence(t, time.Hour) // its release was lost
	a.wants(t, eventlog.Claim{Fence: fence(t, 1, 1)}, 0, nil)
	a.silence(t, 4*time.Second)
	a.other().wants(t, eventlog.Claim{Fence: fence(t, 2, 0)}, 1, nil)
}

func keepsAlive(t *testing.T, open Open) {
	a := setup(t, open, eventlog.Params{TTL: time.Hour})
	b := a.other()
	a.wants(t, eventlog.Claim{Fence: fence(t, 1, 0)}, 0, nil)
	left := func(want time.Duration) {
		t.Helper()
		for _, key := range []string{a.claimKey(), a.key()} {
			if got, err := a.rdb.TTL(t.Context(), key).Result(); err != nil || got > want || got < want-10*time.Second {
				t.Errorf("%s lives for %s, %v; want %s", key, got, err, want)
			}
		}
	}
	left(time.Hour)
	for _, key := range []string{a.claimKey(), a.key()} {
		if err := a.rdb.Expire(t.Context(), key, time.Minute).Err(); err != nil {
			t.Fatal(err)
		}
	}
	hold := []eventlog.Hold{{ID: a.id, Fence: fence(t, 1, 0)}}
	if err := b.log.Beat(t.Context(), hold); err != nil {
		t.Fatal(err)
	}
	left(time.Minute)
	if err := a.log.Beat(t.Context(), hold); err != nil {
		t.Fatal(err)
	}
	left(time.Hour)
}
