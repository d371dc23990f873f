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

// every returns an end for published tasks: every nth has one, the others
// another.
func every(n int, one, other task.Status) func(int, task.ID) task.Status {
	return func(i int, _ task.ID) task.Status {
		if i%n == 0 {
			return one
		}
		return other
	}
}

// mourn makes a world of dead tasks, and a worker.
func mourn(t *testing.T, n int, ends func(int, task.ID) task.Status, crash func(string) bool) (*world, *redriver) {
	t.Helper()
	w := newWorld(t)
	for range n {
		w.die(t, death{})
	}
	w.ends, w.takes = ends, 20*time.Second
	r := w.start(t, "a", crash)
	pass(time.Second)
	return w, r
}

func TestCanary(t *testing.T) {
	t.Run("the first tasks go, the rest waits until they have ended well", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, r := mourn(t, 120, every(6, task.Dead, task.Succeeded), nil)
			j := r.redrive(`{"filter":{},"rate":100}`)
			pass(15 * time.Second)
			if j = r.job(j.ID); j.Canary != redrive.CanaryWaiting || j.Redriven != 50 || len(w.order) != 50 || j.ETASeconds != 0 {
				t.Errorf("before they ended: %+v; want 50 redriven and the canary waiting", j)
			}
			j = r.until(j.ID, time.Minute, redrive.JobCompleted)
			if j.Canary != redrive.CanaryPassed || j.Redriven != 120 {
				t.Errorf("at the end: %+v", j)
			}
			if gap := w.order[50].Sub(w.order[49]); gap < 20*time.Second || gap > 25*time.Second {
				t.Errorf("the rest began %s after the canary; want when its tasks had ended", gap)
			}
		})
	})
	for _, bad := range []task.Status{task.Dead, task.Failed, task.Expired} {
		t.Run(fmt.Sprintf("too many that end as %s abort the job, and it says so", bad), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, r := mourn(t, 120, every(4, bad, task.Succeeded), nil)
				j := r.redrive(`{"filter":{},"rate":100}`)
				j = r.until(j.ID, time.Minute, redrive.JobAborted)
				if j.Canary != redrive.CanaryFailed || j.Redriven != 50 || len(w.order) != 50 || j.Outcomes.DiedAgain != 12 {
					t.Errorf("job = %+v; want 50 redriven and 12 bad ends", j)
				}
				if !strings.Contains(j.Reason, "12 of the first 50") || !strings.Contains(j.Reason, "20%") {
					t.Errorf("reason = %q", j.Reason)
				}
				if code, _ := r.do("POST", "/admin/v1/redrives/"+j.ID+"/resume", "", nil); code != http.StatusConflict {
					t.Errorf("resume answered %d; want 409: aborted is for good", code)
				}
			})
		})
	}
	t.Run("cancelled tasks speak neither for nor against it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, r := mourn(t, 60, every(1, task.Cancelled, ""), nil)
			j := r.redrive(`{"filter":{},"rate":100}`)
			r.until(j.ID, time.Minute, redrive.JobCompleted)
		})
	})
	t.Run("letters that are skipped do not count as canaries", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			for range 80 {
				w.die(t, death{unfinished: true})
			}
			pass(time.Second) // the oldest first
			for range 30 {
				w.die(t, death{})
			}
			r := w.start(t, "a", nil)
			pass(time.Second)
			j := r.redrive(`{"filter":{},"rate":100,"canary":10}`)
			pass(time.Minute)
			if j = r.job(j.ID); j.Canary != redrive.CanaryWaiting || j.Redriven != 10 || j.Skipped != 80 {
				t.Errorf("job = %+v; want 10 redriven before it waits", j)
			}
		})
	})
	for _, wish := range []string{"pause", "cancel"} {
		t.Run(wish+" works while it waits, for ends that never come", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, r := mourn(t, 60, nil, nil)
				j := r.redrive(`{"filter":{},"rate":100}`)
				pass(time.Hour)
				r.do("POST", "/admin/v1/redrives/"+j.ID+"/"+wish, "", nil)
				j = r.until(j.ID, time.Second, redrive.JobPaused, redrive.JobCancelled)
				if len(w.order) != 50 || j.Remaining != 10 {
					t.Errorf("%d publications, job %+v", len(w.order), j)
				}
			})
		})
	}
	t.Run("the ratio holds over the rest as well", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			broken := func(i int, _ task.ID) task.Status {
				if i > 200 {
					return task.Dead
				}
				return task.Succeeded
			}
			w, r := mourn(t, 600, broken, nil)
			j := r.redrive(`{"filter":{},"rate":10}`)
			j = r.until(j.ID, 5*time.Minute, redrive.JobAborted)
			if j.Canary != redrive.CanaryPassed || !strings.Contains(j.Reason, "of the latest 50") {
				t.Errorf("job = %+v", j)
			}
			if n := len(w.order); n < 400 || n > 430 { // 200 good, 200 before the first died, 11 more are too many, and a second
				t.Errorf("%d publications; want the job to stop soon after the deaths show", n)
			}
		})
	})
	t.Run("none is asked for, and none happens", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, r := mourn(t, 60, nil, nil)
			j := r.redrive(`{"filter":{},"rate":100,"canary":0}`)
			if j = r.until(j.ID, time.Minute, redrive.JobCompleted); j.Canary != redrive.CanaryNone || len(w.order) != 60 {
				t.Errorf("job = %+v", j)
			}
		})
	})
}

func TestCanaryOutlivesItsWorker(t *testing.T) {
	for _, point := range []string{"after redrive.step", "before states", "before redrive.judged", "after redrive.judged"} {
		for _, good := range []bool{true, false} {
			t.Run(fmt.Sprintf("killed %s, with good ends %v", point, good), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					end := every(3, task.Dead, task.Succeeded)
					if good {
						end = every(1, task.Succeeded, "")
					}
					nth := 30
					if strings.HasSuffix(point, "judged") {
						nth = 0
					}
					w, r := mourn(t, 80, end, at(point, nth))
					j := r.redrive(`{"filter":{},"rate":20}`)
					pass(40 * time.Second)
					heir := w.start(t, "heir", nil)
					j = heir.until(j.ID, 3*time.Minute, redrive.JobCompleted, redrive.JobAborted)
					if want := map[bool]redrive.JobState{true: redrive.JobCompleted, false: redrive.JobAborted}[good]; j.State != want {
						t.Errorf("job = %+v; want %s", j, want)
					}
					if !good && j.Redriven != 50 {
						t.Errorf("redriven %d; want no more than the canary", j.Redriven)
					}
				})
			})
		}
	}
}

func TestAWorkerThatSleptWhileItsJobWentOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ids := make([]task.ID, 400)
		for i := range ids {
			ids[i], _ = w.die(t, death{})
		}
		a := w.start(t, "a", nil)
		pass(time.Second)
		j := a.redrive(`{"filter":{},"rate":10,"canary":0}`)
		pass(5 * time.Second)
		a.worker.freeze(true)
		b := w.start(t, "b", nil)
		pass(25 * time.Second)
		if owner := b.job(j.ID).Owner; !strings.HasPrefix(owner, "b/") {
			t.Fatalf("owner after the lease is %q; want b", owner)
		}
		a.worker.freeze(false)
		j = b.until(j.ID, 2*time.Minute, redrive.JobCompleted)
		w.check(t, j, ids)
		if twice := len(w.order) - len(ids); twice > 64+10 { // and what it began before it read that it was replaced
			t.Errorf("%d letters were published twice; want no more than were in flight", twice)
		}
	})
}
