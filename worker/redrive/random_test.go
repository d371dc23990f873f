package redrive_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/redrive"
)

// reaper kills workers at random effects until it rests. It is asked under the
// world's lock.
type reaper struct {
	rng   *rand.Rand
	oneIn int
	rests bool
	kills int
}

func (k *reaper) crash(op string) bool {
	if k.rests || k.rng.IntN(k.oneIn) != 0 {
		return false
	}
	k.kills++
	return true
}

// TestRandomKills kills the workers that run a job at any effect, again and
// again, while an operator pauses and resumes it, tasks end well or badly and
// the projection lags; then it lets the job end. The faults are drawn from the
// seed; which goroutine meets them is not.
func TestRandomKills(t *testing.T) {
	var mu sync.Mutex
	reached := map[redrive.JobState]int{}
	for seed := range uint64(12) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				state := simulate(t, seed)
				mu.Lock()
				defer mu.Unlock()
				reached[state]++
			})
		})
	}
	for _, s := range []redrive.JobState{redrive.JobCompleted, redrive.JobAborted, redrive.JobCancelled} {
		if reached[s] == 0 {
			t.Errorf("no seed ended as %s: %v", s, reached)
		}
	}
}

func simulate(t *testing.T, seed uint64) redrive.JobState {
	rng := rand.New(rand.NewPCG(seed, 22))
	w := newWorld(t)
	w.lag = time.Duration(rng.IntN(300)) * time.Millisecond
	w.takes = time.Duration(rng.IntN(30)) * time.Second
	w.ends = func(n int, _ task.ID) task.Status {
		if seed%6 == 1 || n%10 == 0 {
			return task.Dead
		}
		return task.Succeeded
	}
	ids := make([]task.ID, 90)
	for i := range ids {
		var ref redrive.Ref
		if ids[i], ref = w.die(t, death{}); rng.IntN(4) == 0 {
			w.repeat(ref) // the worker crashed after the letter and wrote it again
		}
	}
	k := &reaper{rng: rand.New(rand.NewPCG(seed, 9)), oneIn: 20 + rng.IntN(200)}
	w.mu.Lock()
	k.rests = true // the first must live to create the job
	w.mu.Unlock()
	crew := []*redriver{w.start(t, "0", k.crash), w.start(t, "1", k.crash)}
	pass(time.Second)
	j := crew[0].redrive(`{"filter":{},"rate":20,"canary":30}`)
	w.mu.Lock()
	k.rests = false
	w.mu.Unlock()
	for n := range 12 {
		pass(time.Duration(rng.IntN(10_000)) * time.Millisecond)
		for i, r := range crew {
			w.mu.Lock()
			dead := r.worker.killed
			w.mu.Unlock()
			if dead {
				crew[i] = w.start(t, fmt.Sprint(i, "-", n), k.crash)
			}
		}
		wish := []string{"pause", "resume", "resume"}[rng.IntN(3)]
		if n == 8 && seed%4 == 0 {
			wish = "cancel"
		}
		crew[n%2].do("POST", "/admin/v1/redrives/"+j.ID+"/"+wish, "", nil) // it may die of it
	}
	w.mu.Lock()
	k.rests = true
	w.mu.Unlock()
	last := w.start(t, "last", nil)
	if code, e := last.do("POST", "/admin/v1/redrives/"+j.ID+"/resume", "", nil); code != http.StatusOK && code != http.StatusConflict {
		t.Fatalf("resume answered %d: %s", code, e.Message)
	}
	j = last.until(j.ID, 10*time.Minute, redrive.JobCompleted, redrive.JobAborted, redrive.JobCancelled)
	t.Logf("%d kills, %s at %d of %d", k.kills, j.State, j.Redriven, j.Total)
	w.once(t, j, ids)
	return j.State
}

// once demands that what the job counts is what the log tells: each task was
// reopened at most once, none was reopened and left, none was skipped.
func (w *world) once(t *testing.T, j redrive.Job, ids []task.ID) {
	t.Helper()
	reopened := 0
	for _, id := range ids {
		s, n := w.truth(id)
		if n > 1 || (n == 1) != (s.Generation == 1) || (n == 1) != (len(w.tasks[id]) > 0) {
			t.Errorf("%s: %d reopenings, generation %d, %d publications", id, n, s.Generation, len(w.tasks[id]))
		}
		reopened += n
	}
	if j.Total != len(ids) || j.Redriven != reopened || j.Skipped != 0 {
		t.Errorf("the job counts %d redriven and %d skipped of %d; the log has %d reopened: %v", j.Redriven, j.Skipped, j.Total, reopened, j.SkippedFor)
	}
	if j.State == redrive.JobCompleted && j.Remaining != 0 {
		t.Errorf("completed with %d letters left", j.Remaining)
	}
	if j.State == redrive.JobAborted && !strings.Contains(j.Reason, "ended badly again") {
		t.Errorf("aborted because %q", j.Reason)
	}
	for id, all := range w.tasks {
		for _, p := range all {
			if p.progress.Generation != 1 || p.progress.RedriveJob != j.ID {
				t.Errorf("%s was published in generation %d by %q", id, p.progress.Generation, p.progress.RedriveJob)
			}
		}
	}
}
