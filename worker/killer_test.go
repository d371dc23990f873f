package worker_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
	"github.com/penstock/penstock/worker/attempt"
	"github.com/penstock/penstock/worker/backend"
)

// supervisor starts a worker, and another when that one was killed.
type supervisor struct {
	w *world

	mu      sync.Mutex
	workers []*running
	crashes int
	dead    chan struct{} // holds one death
}

// kill is what a killer does to the worker that runs it.
func (s *supervisor) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crashes++
	s.workers[len(s.workers)-1].kill()
	select {
	case s.dead <- struct{}{}:
	default: // it is dead already
	}
}

// run keeps one worker alive for a time.
func (s *supervisor) run(d time.Duration) {
	end := time.After(d)
	for alive := true; alive; {
		r := s.w.start()
		s.mu.Lock()
		s.workers = append(s.workers, r)
		s.mu.Unlock()
		select {
		case <-s.dead:
			time.Sleep(time.Second)
		case <-end:
			alive = false
			r.stop()
		}
	}
}

// bury ends what is left of the dead workers. They get their network back, so
// that their clients can leave their groups.
func (s *supervisor) bury() {
	for _, r := range s.workers[:len(s.workers)-1] {
		r.mend()
		time.Sleep(time.Minute)
		r.stop()
	}
}

// letters are the dead letters by task.
func (w *world) letters() map[task.ID]deadletter.Letter {
	w.t.Helper()
	out := map[task.ID]deadletter.Letter{}
	for _, rec := range w.read(topic.DeadLetters) {
		l, err := wire.DecodeDeadLetter(rec)
		if err != nil {
			w.t.Fatal(err)
		}
		out[l.TaskID] = l
	}
	return out
}

func TestATaskThatKillsItsWorkersIsBuriedAloneAfterThreeOfThem(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) { killOnce(t, w, rand.New(rand.NewPCG(seed, 17))) })
		})
	}
}

func killOnce(t *testing.T, w *world, rnd *rand.Rand) {
	s := &supervisor{w: w, dead: make(chan struct{}, 1)}
	w.engine.script(func(ctx context.Context, items []backend.Item) []backend.Outcome {
		if slices.ContainsFunc(items, func(it backend.Item) bool { return it.Task.Payload.Text == "killer" }) {
			s.kill()
			<-ctx.Done() // what is dead does not answer
			return backend.Fail(len(items), ctx.Err())
		}
		time.Sleep(time.Duration(len(items[0].Task.Payload.Text)) * 20 * time.Millisecond)
		return echo(ctx, items)
	})
	var killer task.ID
	tasks, at := 40+rnd.IntN(80), rnd.IntN(40)
	for i := range tasks {
		tk := w.submit(func(tk *task.Task) {
			tk.Payload.Text = "innocent"[:1+rnd.IntN(8)]
			if i == at {
				tk.Payload.Text = "killer"
			}
			if rnd.IntN(3) == 0 { // some share a call, some do not
				tk.Kind = task.Completion
			}
			tk.Stream = rnd.IntN(4) == 0
		})
		if i == at {
			killer = tk.ID
		}
	}
	s.run(3 * time.Minute)
	defer s.bury()

	if s.crashes != attempt.MaxLosses {
		t.Errorf("%d workers died, want %d", s.crashes, attempt.MaxLosses)
	}
	letters := w.letters()
	if l, ok := letters[killer]; !ok || len(letters) != 1 || l.Disposition != deadletter.SuspectedKiller || l.Attempts != 0 {
		t.Errorf("%d dead letters, the killer's: %+v", len(letters), letters[killer])
	}
	ends, _ := w.ends()
	if len(ends) != tasks {
		t.Errorf("%d of %d tasks ended", len(ends), tasks)
	}
	for id, end := range ends {
		if id == killer {
			continue
		}
		if counted := countedAttempts(end.Attempts); end.Status != task.Succeeded || counted != 1 {
			t.Errorf("an innocent task ended %s after %d attempts: %+v", end.Status, counted, end.Attempts)
		}
	}
	if n := w.unsettled(); n != 0 {
		t.Errorf("%d records are uncommitted", n)
	}
}

// countedAttempts leaves the lost ones out.
func countedAttempts(all []task.Attempt) int {
	n := 0
	for _, a := range all {
		if a.Class != "lost" {
			n++
		}
	}
	return n
}
