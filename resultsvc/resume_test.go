package resultsvc_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

func line(e event.Event) string { return fmt.Sprintf("%s %s %q", e.ID, e.Type, e.Text) }

// story writes a task's life and calls step between any two writes. It returns
// what every client must see.
func (b *bundle) story(id task.ID, step func()) []string {
	tell := func(e event.Event) event.Event { e.TaskID = id; return e }
	told := []event.Event{tell(event.Event{ID: event.QueuedID(), Type: event.Queued})}
	for n := 1; n <= 1+rand.IntN(2); n++ {
		f, err := event.NewFence(0, 0, int32(n), 0)
		if err != nil {
			b.t.Error(err)
		}
		step()
		if err := b.events.Claim(b.t.Context(), eventlog.Claim{ID: id, Fence: f, Attempt: n}); err != nil {
			b.t.Error(err)
		}
		told = append(told, tell(event.Event{ID: event.ID{Fence: f}, Type: []event.Type{event.Started, event.Restart}[min(n-1, 1)]}))
		for seq := uint64(1); seq <= uint64(rand.IntN(12)); seq++ {
			e := tell(event.Event{ID: event.ID{Fence: f, Seq: seq}, Type: event.Delta, Text: fmt.Sprint(n, "\n", seq)})
			step()
			if err := b.events.Append(b.t.Context(), []eventlog.Append{{ID: id, Events: []event.Event{e}}})[0]; err != nil {
				b.t.Error(err)
			}
			told = append(told, e)
		}
	}
	step()
	b.end(id, task.Succeeded, 0)
	told = append(told, tell(event.Event{ID: event.TerminalID(0), Type: event.Succeeded}))
	lines := make([]string, len(told))
	for i, e := range told {
		lines[i] = line(e)
	}
	return lines
}

// tail reads a task's events to the end, from one replica after the other, a few
// frames at a time, and asks once more: there must be nothing left.
func tail(t *testing.T, replicas []*bundle, id task.ID) (seen []string) {
	t.Helper()
	last, path := "", "/v1/tasks/"+string(id)+"/events"
	for n := rand.IntN(2); ; n++ {
		replica := replicas[n%len(replicas)]
		var res *http.Response
		if n%3 == 0 && last != "" {
			res = replica.get(path + "?after=" + last)
		} else {
			res = replica.get(path, "Last-Event-ID", last)
		}
		if res.StatusCode == http.StatusNoContent {
			return seen
		}
		if res.StatusCode != http.StatusOK {
			t.Errorf("resume after %q: %d", last, res.StatusCode)
			return seen
		}
		got, _ := frames(t, res.Body, 1+rand.IntN(6))
		_ = res.Body.Close()
		for _, f := range got {
			seen, last = append(seen, line(f.decoded(t))), f.id
		}
	}
}

// TestRandomJoinsAndCuts is 300 clients of two replicas, which join at any moment
// of a task's life, are cut again and again, and resume at the other replica.
func TestRandomJoinsAndCuts(t *testing.T) {
	b := setup(t, onRedis(t))
	replicas := []*bundle{b, b.another()}
	b.await(b.settled(t)) // the projection is caught up
	const stories, clients = 60, 5
	var wg sync.WaitGroup
	gate := make(chan struct{}, 6)
	for range stories {
		wg.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			id, joined := b.id(), 0
			seen := make([][]string, clients)
			var in sync.WaitGroup
			join := func() {
				i := joined
				joined++
				in.Go(func() { seen[i] = tail(t, replicas, id) })
			}
			want := b.story(id, func() {
				for joined < clients && rand.IntN(4) == 0 {
					join()
				}
			})
			for joined < clients {
				join()
			}
			in.Wait()
			for i := range seen {
				if d := cmp.Diff(want, seen[i]); d != "" {
					t.Errorf("client %d: %s", i, d)
				}
			}
		})
	}
	wg.Wait()
}
