//go:build !integration

package follow_test

// Tests that stop Redis: on the fake only, since a real one serves others too.

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

func TestWatchersSurviveARedisThatComesBack(t *testing.T) {
	b := setup(t, follow.Params{Heartbeat: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	id, f := b.id(), fence(0, 1)
	b.claim(id, f, 1)
	c, err := b.follower.Follow(ctx, id, event.ID{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var got []string
	read := func(n int) {
		for range n {
			e, err := c.Next(ctx)
			if err != nil {
				t.Fatalf("after %v: %v", got, err)
			}
			got = append(got, line(e))
		}
	}
	b.say(id, f, 1, 2)
	read(4)
	b.redis.Close()
	if err := b.redis.Restart(); err != nil {
		t.Fatal(err)
	}
	b.say(id, f, 3, 5) // before the subscription stands again
	b.end(id, task.Succeeded, 0)
	read(4)
	want := []string{"0-1 queued ", "256-0 started ", "256-1 delta 1", "256-2 delta 2", "256-3 delta 3", "256-4 delta 4", "256-5 delta 5", event.TerminalID(0).String() + " succeeded "}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestTerminalsComeWithoutRedis(t *testing.T) {
	b := setupTail(t)
	b.redis.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	id := b.young()
	c, err := b.follower.Follow(ctx, id, event.ID{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b.publish(t, b.ended(id, task.Succeeded, 0))
	b.publish(t, b.ended(id, task.Failed, 0))
	var got []string
	for {
		e, err := c.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, line(e))
	}
	if d := cmp.Diff([]string{"0-1 queued ", event.TerminalID(0).String() + " succeeded "}, got); d != "" {
		t.Error(d)
	}
}

func TestATerminalOfAnOlderTaskNeedsRedis(t *testing.T) {
	b := setupTail(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	old := b.minter.New("acme", time.Now().Add(-time.Hour))
	b.redis.Close()
	short, done := context.WithTimeout(ctx, 700*time.Millisecond)
	defer done()
	var wg sync.WaitGroup
	var err error
	wg.Go(func() { _, _, err = b.follower.Wait(short, old) })
	b.publish(t, b.ended(old, task.Succeeded, 0))
	wg.Wait()
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a terminal nobody confirmed was delivered: %v", err)
	}
}

func TestALateTerminalIsNotDelivered(t *testing.T) {
	b := setupTail(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	id := b.young()
	b.publish(t, b.ended(id, task.Cancelled, 0)) // wins while nobody watches
	b.await(t)                                   // the tail has passed it
	b.redis.Close()
	short, done := context.WithTimeout(ctx, 500*time.Millisecond)
	defer done()
	var wg sync.WaitGroup
	var err error
	wg.Go(func() { _, _, err = b.follower.Wait(short, id) })
	b.publish(t, b.ended(id, task.Succeeded, 0))
	wg.Wait()
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the loser was delivered: %v", err)
	}
}

func TestAWatcherThatComesAfterTheTailGetsTheTerminalToo(t *testing.T) {
	b := setupTail(t)
	b.redis.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	id := b.young()
	first, err := b.follower.Follow(ctx, id, event.QueuedID())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := b.follower.Follow(ctx, id, event.QueuedID())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	b.publish(t, b.ended(id, task.Succeeded, 0))
	if e, err := first.Next(ctx); err != nil || e.Type != event.Succeeded {
		t.Fatalf("%+v, %v", e, err)
	}
	if got, _, err := b.follower.Wait(ctx, id); err != nil || got.Status != task.Succeeded {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestRedisMayGoAwayOnceItHasShownATaskOpen: the id of a task with an
// idempotency key does not tell its age, so what Redis showed has to.
func TestRedisMayGoAwayOnceItHasShownATaskOpen(t *testing.T) {
	for name, c := range map[string]struct {
		before func(b tailBundle, id task.ID) // Redis is read
		told   bool
	}{
		"the end is told": {func(b tailBundle, id task.ID) {
			// Redis stands beyond where the tail began, wherever that was.
			if err := b.store.Apply(context.Background(), b.store.Partition(id), 0, 1000, nil); err != nil {
				b.t.Error(err)
			}
		}, true},
		"but not by a Redis that has lost its data": {func(b tailBundle, _ task.ID) { b.redis.FlushAll() }, false},
		"nor by one that stands before the tail": {func(b tailBundle, _ task.ID) {
			b.redis.FlushAll()
			if err := b.store.Rebuild(context.Background(), 0, -1, 0); err != nil {
				b.t.Error(err)
			}
		}, false},
		"nor when the tail has seen it end": {func(b tailBundle, id task.ID) {
			b.publish(b.t, b.ended(id, task.Cancelled, 0))
			b.await(b.t)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := setupTail(t)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			old := b.minter.New("acme", time.Now().Add(-time.Hour))
			c.before(b, old)
			b.claim(old, fence(0, 1), 1)
			cur, err := b.follower.Follow(ctx, old, event.QueuedID())
			if err != nil {
				t.Fatal(err)
			}
			defer cur.Close()
			if e, err := cur.Next(ctx); err != nil || e.Type != event.Started { // history was read
				t.Fatalf("got %+v, %v", e, err)
			}
			b.redis.Close()
			b.publish(t, b.ended(old, task.Succeeded, 0))
			if !c.told {
				ctx, cancel = context.WithTimeout(ctx, 700*time.Millisecond)
				defer cancel()
			}
			e, err := cur.Next(ctx)
			if told := err == nil && e.Type == event.Succeeded; told != c.told {
				t.Errorf("got %+v, %v", e, err)
			}
		})
	}
}
