package follow_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// TestWatchesComeAndGo writes many tasks while one stream takes each of them up
// at some moment, leaves some, and resumes those after the last event it had.
func TestWatchesComeAndGo(t *testing.T) {
	b := setup(t, follow.Params{})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	const stories = 60
	s := b.follower.Open()
	defer s.Close()
	var mu sync.Mutex // guards asked and want
	var asked []follow.Watch
	want := map[task.ID][]string{}
	ask := func(w follow.Watch) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, w)
		s.Nudge()
	}
	var wg sync.WaitGroup
	gate := make(chan struct{}, 8)
	for range stories {
		wg.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			id, once := b.id(), sync.Once{}
			join := func() { once.Do(func() { ask(follow.Watch{ID: id}) }) }
			told := b.story(id, func() {
				if rand.IntN(4) == 0 {
					join()
				}
			})
			mu.Lock()
			want[id] = told
			mu.Unlock()
			join()
		})
	}
	got, last, ended := map[task.ID][]string{}, map[task.ID]event.ID{}, 0
	for ended < stories {
		it, err := s.Next(ctx)
		if errors.Is(err, follow.ErrIdle) {
			mu.Lock()
			for _, w := range asked {
				if !s.Add(w) || s.Add(w) {
					t.Error("a new watch is not new, or an old one is")
				}
			}
			asked = nil
			mu.Unlock()
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if it.ID.IsZero() {
			t.Fatalf("task %s ended without a word", it.Task)
		}
		e, err := it.Event()
		if err != nil {
			t.Fatal(err)
		}
		got[it.Task], last[it.Task] = append(got[it.Task], line(e)), it.ID
		if it.ID.Fence.Terminal() {
			ended++
			if s.Remove(it.Task) {
				t.Error("a task that has ended is still watched")
			}
		} else if rand.IntN(3) == 0 {
			if !s.Remove(it.Task) || s.Remove(it.Task) {
				t.Error("a watch cannot be ended, or ends twice")
			}
			id := it.Task
			wg.Go(func() { ask(follow.Watch{ID: id, After: e.ID}) })
		}
	}
	wg.Wait()
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestAWatchThatEndsWithNothingToShowIsTold(t *testing.T) {
	b := setup(t, follow.Params{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	id := b.id()
	b.end(id, task.Succeeded, 0)
	s := b.follower.Open()
	defer s.Close()
	s.Add(follow.Watch{ID: id, After: event.TerminalID(0)})
	it, err := s.Next(ctx)
	if err != nil || it.Task != id || !it.ID.IsZero() {
		t.Errorf("got %+v, %v", it, err)
	}
	if s.Remove(id) {
		t.Error("it is still watched")
	}
}

func TestAStreamWithoutWatchesWaitsUntilItIsNudged(t *testing.T) {
	b := prepare(t, follow.Params{})
	s := b.follower.Open()
	defer s.Close()
	s.Nudge()
	if _, err := s.Next(t.Context()); !errors.Is(err, follow.ErrIdle) {
		t.Errorf("nudged before it waits: %v", err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(s.Nudge)
	if _, err := s.Next(t.Context()); !errors.Is(err, follow.ErrIdle) {
		t.Errorf("nudged: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
