package redrive_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/redrive"
)

// crashPoints are all effects of a worker that runs a job; it is killed just
// before or just after the nth.
func crashPoints() []string {
	var out []string
	for _, op := range []string{"redrive.claimed", "fetch", "states", "reopen", "projection", "publish", "redrive.step", "redrive.beat", "redrive.released"} {
		out = append(out, "before "+op, "after "+op)
	}
	return out
}

// at returns a crash at the nth time of a point.
func at(point string, n int) func(string) bool {
	return func(op string) bool {
		if op == point {
			n--
		}
		return n < 0
	}
}

func TestCrash(t *testing.T) {
	const letters = 8
	for _, point := range crashPoints() {
		for _, nth := range []int{0, 3} {
			t.Run(fmt.Sprintf("killed %s, number %d: every letter is redriven once, visibly", point, nth+1), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					ids := make([]task.ID, letters)
					for i := range ids {
						var ref redrive.Ref
						if ids[i], ref = w.die(t, death{}); i%3 == 0 {
							w.repeat(ref)
						}
					}
					victim := w.start(t, "victim", at(point, nth))
					pass(time.Second)
					j := victim.redrive(`{"filter":{},"rate":1}`)
					pass(20 * time.Second)
					heir := w.start(t, "heir", nil)
					j = heir.until(j.ID, 2*time.Minute, redrive.JobCompleted)
					w.check(t, j, ids)
				})
			})
		}
	}
}

// check demands that a job of letters is complete, once and visibly.
func (w *world) check(t *testing.T, j redrive.Job, ids []task.ID) {
	t.Helper()
	if j.Total != len(ids) || j.Redriven != len(ids) || j.Skipped != 0 {
		t.Errorf("job counts %d redriven and %d skipped of %d; want all %d redriven: %v", j.Redriven, j.Skipped, j.Total, len(ids), j.SkippedFor)
	}
	for _, id := range ids {
		s, reopenings := w.truth(id)
		if reopenings != 1 || s.Generation != 1 || !s.Open() || s.RedriveJob != j.ID {
			t.Errorf("%s: %d valid reopenings, state %+v; want one, open in generation 1", id, reopenings, s)
		}
		n := len(w.tasks[id])
		if n < 1 || n > 2 {
			t.Errorf("%s was published %d times; want once, or twice after a crash", id, n)
		}
		for _, p := range w.tasks[id] {
			if p.progress.Generation != 1 {
				t.Errorf("%s was published in generation %d; want 1", id, p.progress.Generation)
			}
		}
	}
}

func TestCrashOfEveryWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lag = 200 * time.Millisecond
		ids := make([]task.ID, 40)
		for i := range ids {
			ids[i], _ = w.die(t, death{})
		}
		first := w.start(t, "0", at("after publish", 3))
		pass(time.Second)
		j := first.redrive(`{"filter":{},"rate":100}`)
		for i, point := range []string{"after reopen", "before publish", "after publish", "before redrive.step"} {
			w.start(t, fmt.Sprint(i+1), at(point, 4))
			pass(20 * time.Second)
		}
		last := w.start(t, "last", nil)
		j = last.until(j.ID, 2*time.Minute, redrive.JobCompleted)
		for _, id := range ids {
			if s, reopenings := w.truth(id); reopenings != 1 || s.Generation != 1 || len(w.tasks[id]) == 0 {
				t.Errorf("%s: %d reopenings, generation %d, %d publications", id, reopenings, s.Generation, len(w.tasks[id]))
			}
		}
		if j.Redriven != len(ids) {
			t.Errorf("redriven %d; want %d", j.Redriven, len(ids))
		}
	})
}

func TestStopAfterACrash(t *testing.T) {
	for _, wish := range []string{"pause", "cancel"} {
		t.Run(wish+" after a kill between reopening and publishing leaves no task reopened for nobody", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.lag = time.Second // so that several letters are between steps
				ids := make([]task.ID, 100)
				for i := range ids {
					ids[i], _ = w.die(t, death{})
				}
				victim := w.start(t, "victim", at("before publish", 3))
				pass(time.Second)
				j := victim.redrive(`{"filter":{},"rate":10,"canary":0}`)
				pass(5 * time.Second)
				heir := w.start(t, "heir", nil)
				if !victim.worker.killed {
					t.Fatal("the victim lives")
				}
				if code, e := heir.do("POST", "/admin/v1/redrives/"+j.ID+"/"+wish, "", nil); code != http.StatusOK {
					t.Fatalf("%s answered %d: %s", wish, code, e.Message)
				}
				j = heir.until(j.ID, time.Minute, redrive.JobPaused, redrive.JobCancelled)
				reopened := 0
				for _, id := range ids {
					s, _ := w.truth(id)
					if s.Generation == 1 {
						reopened++
						if len(w.tasks[id]) == 0 {
							t.Errorf("%s is reopened and was never published", id)
						}
					}
				}
				if reopened < 10 || reopened == len(ids) || j.Redriven != reopened {
					t.Errorf("%d of %d reopened, job counts %d", reopened, len(ids), j.Redriven)
				}
			})
		})
	}
}

func TestTakeoverKeepsTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 60 {
			w.die(t, death{})
		}
		victim := w.start(t, "victim", at("after redrive.step", 9))
		pass(time.Second)
		j := victim.redrive(`{"filter":{},"rate":10,"canary":0}`)
		pass(2 * time.Second)
		killed := time.Now()
		heir := w.start(t, "heir", nil)
		pass(10 * time.Second)
		if owner := heir.job(j.ID).Owner; !strings.HasPrefix(owner, "victim/") {
			t.Errorf("owner after 10 s of silence is %q; want still the victim", owner)
		}
		heir.until(j.ID, time.Minute, redrive.JobCompleted)
		if took := time.Since(killed); took > 25*time.Second {
			t.Errorf("completed %s after the kill; want within lease + the rest", took)
		}
	})
}

func TestStoreThatLosesItsData(t *testing.T) {
	for nth := range 4 {
		t.Run(fmt.Sprintf("before its read number %d: nothing is skipped for it", nth+1), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				ids := make([]task.ID, 2)
				for i := range ids {
					ids[i], _ = w.die(t, death{})
				}
				reads := 0
				r := w.start(t, "a", func(op string) bool {
					if op == "before states" {
						if reads++; reads == nth+1 {
							w.empty = true
							time.AfterFunc(time.Second, func() { w.mu.Lock(); w.empty = false; w.mu.Unlock() })
						}
					}
					return false
				})
				pass(time.Second)
				j := r.redrive(`{"filter":{},"rate":1}`)
				w.check(t, r.until(j.ID, time.Minute, redrive.JobCompleted), ids)
			})
		})
	}
}
