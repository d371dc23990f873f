package redrive_test

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/redrive"
)

func TestLoopGuard(t *testing.T) {
	for generation, want := range map[uint8]map[bool]redrive.Reason{
		4:   {false: redrive.ReasonNotDead, true: redrive.ReasonNotDead}, // the guard lets it pass; the log has no such generation
		5:   {false: redrive.ReasonRedrivenTooOften, true: redrive.ReasonNotDead},
		249: {false: redrive.ReasonRedrivenTooOften, true: redrive.ReasonNotDead},
		250: {false: redrive.ReasonGenerationLimit, true: redrive.ReasonGenerationLimit},
	} {
		for force, reason := range want {
			t.Run(fmt.Sprintf("a task redriven %d times, force %v", generation, force), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					w.die(t, death{generation: generation, unfinished: true})
					r := w.start(t, "a", nil)
					pass(time.Second)
					j := r.redrive(fmt.Sprintf(`{"filter":{},"force":%v}`, force))
					j = r.until(j.ID, time.Minute, redrive.JobCompleted)
					if diff := cmp.Diff(map[redrive.Reason]int{reason: 1}, j.SkippedFor); diff != "" {
						t.Error(diff)
					}
				})
			})
		}
	}
	t.Run("a task that dies each time is redriven five times and no more", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			id, _ := w.die(t, death{})
			r := w.start(t, "a", nil)
			for range 7 {
				pass(time.Second)
				j := r.redrive(`{"ids":["` + string(id) + `"]}`)
				if j = r.until(j.ID, time.Minute, redrive.JobCompleted); j.Redriven == 1 {
					w.dieAgain(t, id)
				}
			}
			if s, _ := w.truth(id); s.Generation != 5 || len(w.tasks[id]) != 5 {
				t.Errorf("generation %d, %d publications; want 5 each", s.Generation, len(w.tasks[id]))
			}
		})
	})
}

func TestTooOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		const life = time.Hour
		old, _ := w.die(t, death{})
		pass(life - 2*time.Minute)
		young, _ := w.die(t, death{deadline: 3 * time.Hour})
		r := w.start(t, "a", nil, func(p *redrive.Params) {
			p.GoneAtFunc = func(id task.ID) time.Time { return id.Time().Add(life) }
		})
		pass(90 * time.Second)
		var l redrive.LetterList
		r.do("GET", "/admin/v1/dead-letters", "", &l)
		for _, letter := range l.Letters {
			if want := letter.TaskID.Time().Add(life - time.Minute); !letter.RedrivableUntil.Equal(want) {
				t.Errorf("%s is redrivable until %s; want %s", letter.TaskID, letter.RedrivableUntil, want)
			}
		}
		var d redrive.Detail
		if r.do("GET", "/admin/v1/dead-letters/"+string(old), "", &d); d.Refused != redrive.ReasonTooOld {
			t.Errorf("refused = %q; want too_old", d.Refused)
		}
		j := r.redrive(everything)
		j = r.until(j.ID, time.Minute, redrive.JobCompleted)
		if diff := cmp.Diff(map[redrive.Reason]int{redrive.ReasonTooOld: 1}, j.SkippedFor); diff != "" || j.Redriven != 1 {
			t.Errorf("redriven %d; %s", j.Redriven, diff)
		}
		if got, most := w.tasks[young][0].progress.Deadline, young.Time().Add(life); got.After(most) {
			t.Errorf("deadline %s; want none after %s, when the result is past its time to live", got, most)
		}
	})
}

func TestDiscard(t *testing.T) {
	w := newWorld(t)
	keep, _ := w.die(t, death{})
	leave, ref := w.die(t, death{disposition: deadletter.SuspectedKiller})
	w.repeat(ref)
	r := w.start(t, "a", nil)
	list := func(r *redriver, query string) (ids []task.ID) {
		var l redrive.LetterList
		r.do("GET", "/admin/v1/dead-letters"+query, "", &l)
		for _, letter := range l.Letters {
			ids = append(ids, letter.TaskID)
		}
		return ids
	}
	for body, want := range map[string]int{
		`{"ids":["` + string(leave) + `"]}`:                        http.StatusBadRequest, // no reason
		`{"reason":"r"}`:                                           http.StatusBadRequest,
		`{"reason":"r","ids":["0-99"]}`:                            http.StatusNotFound,
		`{"reason":"r","ids":["0-99"],"filter":{}}`:                http.StatusBadRequest,
		`{"reason":"r","ids":["` + string(leave) + `"],"rate":50}`: http.StatusBadRequest,
	} {
		if code, e := r.do("POST", "/admin/v1/discards", body, nil); code != want {
			t.Errorf("%s answered %d (%s); want %d", body, code, e.Message, want)
		}
	}
	const body = `{"filter":{"disposition":"suspected_killer"},"reason":"kills its worker","dry_run":%v}`
	var out redrive.Discarded
	if r.do("POST", "/admin/v1/discards", fmt.Sprintf(body, true), &out); out.Discarded != 1 || len(w.control) != 0 {
		t.Errorf("dry run = %+v with %d entries; want 1 and none", out, len(w.control))
	}
	if code, e := r.do("POST", "/admin/v1/discards", fmt.Sprintf(body, false), &out); code != http.StatusOK || out.Discarded != 1 || out.ID == "" {
		t.Fatalf("answered %d (%s) with %+v", code, e.Message, out)
	}
	again := w.start(t, "b", nil) // which has only the topics
	for name, r := range map[string]*redriver{"the same worker": r, "one that starts later": again} {
		t.Run(name+" hides it unless asked", func(t *testing.T) {
			if diff := cmp.Diff([]task.ID{keep}, list(r, "")); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff([]task.ID{leave}, list(r, "?state=discarded")); diff != "" {
				t.Error(diff)
			}
			if n := len(list(r, "?state=any")); n != 2 {
				t.Errorf("any state lists %d; want 2", n)
			}
			var d redrive.Detail
			r.do("GET", "/admin/v1/dead-letters/"+string(leave), "", &d)
			if d.State != redrive.LetterDiscarded || d.Discarded == nil || d.Discarded.Reason != "kills its worker" || d.Discarded.By != "ada@desk" {
				t.Errorf("show = %+v; want who discarded it and why", d.Letter)
			}
		})
	}
	t.Run("a filter passes over it, its id does not", func(t *testing.T) {
		j := again.redrive(everything)
		if j = again.until(j.ID, 10*time.Second, redrive.JobCompleted); j.Total != 1 {
			t.Errorf("the filter selected %d letters; want 1", j.Total)
		}
		j = again.redrive(`{"ids":["` + string(leave) + `"]}`)
		j = again.until(j.ID, 10*time.Second, redrive.JobCompleted)
		if s, _ := w.truth(leave); j.Redriven != 1 || s.Generation != 1 {
			t.Errorf("redriven %d, generation %d", j.Redriven, s.Generation)
		}
		if r.do("POST", "/admin/v1/discards", `{"ids":["`+string(leave)+`"],"reason":"late"}`, &out); out.Discarded != 0 || out.Redriven != 1 {
			t.Errorf("discarding what is redriven = %+v", out)
		}
	})
}

func TestAudit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 30 {
			w.die(t, death{})
		}
		r := w.start(t, "a", nil)
		pass(time.Second)
		j := r.redrive(`{"filter":{"code":"timeout"},"rate":1,"note":"backend healed"}`)
		for _, wish := range []string{"pause", "pause", "resume", "cancel"} {
			pass(2 * time.Second)
			r.do("POST", "/admin/v1/redrives/"+j.ID+"/"+wish, "", nil)
		}
		heir := w.start(t, "b", nil)
		j = heir.until(j.ID, time.Minute, redrive.JobCancelled)
		var got []string
		for _, n := range j.Audit {
			got = append(got, n.What+" by "+n.By)
		}
		want := []string{"created by ada@desk", "paused by ada@desk", "resumed by ada@desk", "cancelled by ada@desk"}
		if diff := cmp.Diff(want, got); diff != "" || j.Spec.Note != "backend healed" || j.Spec.Filter.Code != "timeout" {
			t.Errorf("%+v; %s", j.Spec, diff)
		}
		if j.RedrivenOf[deadletter.Exhausted] != j.Redriven || j.Redriven == 0 {
			t.Errorf("by disposition %v of %d", j.RedrivenOf, j.Redriven)
		}
	})
}
