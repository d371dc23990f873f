package redrive_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/worker/redrive"
)

const everything = `{"filter":{}}`

func TestDryRun(t *testing.T) {
	t.Run("counts what would move by cause, and writes nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			for range 3 {
				w.die(t, death{})
			}
			w.die(t, death{model: "sim-embed", code: "unavailable", originTopic: topic.Tasks("gone", task.Standard)})
			w.die(t, death{disposition: deadletter.Undecodable, value: []byte("{")})
			w.die(t, death{unfinished: true})
			r := w.start(t, "a", nil)
			synctest.Wait()
			pass(time.Second)
			var p redrive.Preview
			if code, e := r.do("POST", "/admin/v1/redrives", `{"filter":{},"dry_run":true,"rate":2}`, &p); code != http.StatusOK {
				t.Fatalf("answered %d: %s", code, e.Message)
			}
			want := redrive.Preview{
				DryRun: true, WouldMove: 4, WouldSkip: 2, Seconds: 2,
				SkipFor:       map[redrive.Reason]int{redrive.ReasonUndecodable: 1, redrive.ReasonNotDead: 1},
				ByCode:        map[string]int{"timeout": 3, "unavailable": 1},
				ByDisposition: map[string]int{"exhausted": 4},
				ByModel:       map[string]int{"sim-chat": 3, "sim-embed": 1},
				ByPool:        map[string]int{"default": 3, "embed": 1},
			}
			if diff := cmp.Diff(want, p); diff != "" {
				t.Error(diff)
			}
			if len(w.control) != 0 || len(w.tasks) != 0 {
				t.Errorf("dry run wrote %d control entries and %d tasks", len(w.control), len(w.tasks))
			}
		})
	})
	t.Run("a limit cuts the oldest first and says what lies beyond", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			for range 5 {
				w.die(t, death{})
			}
			r := w.start(t, "a", nil)
			pass(time.Second)
			var p redrive.Preview
			r.do("POST", "/admin/v1/redrives", `{"filter":{},"dry_run":true,"limit":2}`, &p)
			if p.WouldMove != 2 || p.Beyond != 3 {
				t.Errorf("would move %d, beyond %d; want 2 and 3", p.WouldMove, p.Beyond)
			}
		})
	})
	t.Run("without the store it is refused, not guessed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.die(t, death{})
			w.broken = errors.New("connection refused")
			r := w.start(t, "a", nil)
			synctest.Wait()
			if code, _ := r.do("POST", "/admin/v1/redrives", `{"filter":{},"dry_run":true}`, nil); code != http.StatusServiceUnavailable {
				t.Errorf("answered %d; want 503", code)
			}
		})
	})
}

func TestRedrive(t *testing.T) {
	t.Run("puts the same bytes back in the next generation, with lineage", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			id, ref := w.die(t, death{})
			original := w.letters[ref.Partition][ref.Offset].Record
			r := w.start(t, "a", nil)
			pass(time.Second)
			j := r.redrive(`{"filter":{},"note":"backend healed"}`)
			j = r.until(j.ID, time.Minute, redrive.JobCompleted)
			if j.Redriven != 1 || j.Skipped != 0 || j.Total != 1 || j.Spec.Note != "backend healed" {
				t.Errorf("job = %+v", j)
			}
			s, _ := w.truth(id)
			if s.Generation != 1 || !s.Open() || s.RedriveJob != j.ID {
				t.Errorf("state = %+v; want open in generation 1 by the job", s)
			}
			got := w.tasks[id]
			if len(got) != 1 {
				t.Fatalf("%d publications; want 1", len(got))
			}
			if string(got[0].record.Value) != string(original.Value) || string(got[0].record.Key) != string(original.Key) {
				t.Error("key or value changed")
			}
			for _, h := range got[0].record.Headers {
				if strings.HasPrefix(h.Key, "penstock_dlt_") || strings.HasPrefix(h.Key, "kafka_dlt-") {
					t.Errorf("lineage header %s travels on", h.Key)
				}
			}
			p := got[0].progress
			if got[0].topic != topic.Tasks("default", task.Standard) || p.Generation != 1 || p.Hop != 0 || p.Attempts != 0 || p.RedriveJob != j.ID || len(p.History) != 1 {
				t.Errorf("published to %s with %+v", got[0].topic, p)
			}
			var l redrive.LetterList
			r.do("GET", "/admin/v1/dead-letters", "", &l)
			if l.Letters[0].State != redrive.LetterRedriven || l.Letters[0].RedrivenBy != j.ID {
				t.Errorf("letter = %+v; want redriven by the job", l.Letters[0])
			}
		})
	})
	t.Run("all is told by the brokers' clock, whatever this machine's says", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.ahead = 3 * time.Hour
			id, _ := w.die(t, death{})
			began := time.Now().Add(w.ahead)
			r := w.start(t, "a", nil)
			pass(time.Second)
			j := r.redrive(`{"filter":{}}`)
			r.until(j.ID, time.Minute, redrive.JobCompleted)
			for _, c := range w.control {
				var e struct{ At time.Time }
				if err := json.Unmarshal(c.Record.Value, &e); err != nil || e.At.Before(began) {
					t.Errorf("an entry of %s: %s", e.At, c.Record.Value)
				}
			}
			log := w.results[topic.ResultsPartition(id, partitions)]
			if last := log[len(log)-1]; last.Status != terminal.Reopened || last.EndedAt.Before(began) {
				t.Errorf("the reopening is %+v", last)
			}
		})
	})
	t.Run("each letter that cannot go is skipped with its reason", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			reasons := map[redrive.Reason]death{
				redrive.ReasonUndecodable:     {disposition: deadletter.Undecodable, value: []byte("\x00\x01")},
				redrive.ReasonGenerationLimit: {generation: 255},
				redrive.ReasonNoPool:          {originTopic: topic.Tasks("gone", task.Standard), model: "gone"},
				redrive.ReasonNotDead:         {unfinished: true},
			}
			want := map[redrive.Reason]int{}
			for reason, d := range reasons {
				w.die(t, d)
				want[reason] = 1
			}
			good, _ := w.die(t, death{originTopic: "penstock.retry.30s", returnTopic: topic.Tasks("embed", task.Standard)})
			r := w.start(t, "a", nil)
			pass(2 * time.Second)
			j := r.redrive(everything)
			j = r.until(j.ID, time.Minute, redrive.JobCompleted)
			if diff := cmp.Diff(want, j.SkippedFor); diff != "" {
				t.Error(diff)
			}
			if len(w.tasks) != 1 || w.tasks[good][0].topic != topic.Tasks("embed", task.Standard) {
				t.Errorf("published: %v; want only the good one, to the pool its retry would return to", w.tasks)
			}
			if len(j.SkippedExamples) != len(reasons) {
				t.Errorf("%d examples; want %d", len(j.SkippedExamples), len(reasons))
			}
		})
	})
	t.Run("a letter past its deadline gets the time it had at first", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			id, _ := w.die(t, death{deadline: time.Minute})
			pass(time.Hour)
			r := w.start(t, "a", nil)
			pass(2 * time.Second)
			j := r.redrive(everything)
			r.until(j.ID, time.Minute, redrive.JobCompleted)
			if len(w.tasks[id]) != 1 {
				t.Fatalf("published %d times; want once", len(w.tasks[id]))
			}
			if left := time.Until(w.tasks[id][0].progress.Deadline); left < 30*time.Second || left > time.Minute {
				t.Errorf("%s left; want about a minute", left)
			}
		})
	})
	t.Run("of two jobs over the same letters one moves each, the other skips it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			const n = 30
			ids := make([]task.ID, n)
			for i := range n {
				var ref redrive.Ref
				ids[i], ref = w.die(t, death{})
				w.repeat(ref)
			}
			a, b := w.start(t, "a", nil), w.start(t, "b", nil)
			pass(time.Second)
			one, two := a.redrive(`{"filter":{},"rate":500}`), b.redrive(`{"filter":{},"rate":500}`)
			one, two = a.until(one.ID, time.Minute, redrive.JobCompleted), a.until(two.ID, time.Minute, redrive.JobCompleted)
			if one.Total != n || two.Total != n {
				t.Errorf("totals %d and %d; want %d: duplicates collapse", one.Total, two.Total, n)
			}
			if one.Redriven+two.Redriven != n || one.Skipped+two.Skipped != n {
				t.Errorf("redriven %d+%d, skipped %d+%d; want %d each", one.Redriven, two.Redriven, one.Skipped, two.Skipped, n)
			}
			for _, id := range ids {
				if s, reopenings := w.truth(id); s.Generation != 1 || reopenings != 1 || len(w.tasks[id]) != 1 {
					t.Errorf("%s: generation %d, %d reopenings, %d publications; want 1 each", id, s.Generation, reopenings, len(w.tasks[id]))
				}
			}
		})
	})
	t.Run("a task that died again is redriven by its newest letter", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			id, _ := w.die(t, death{})
			r := w.start(t, "a", nil)
			pass(time.Second)
			j := r.redrive(everything)
			r.until(j.ID, time.Minute, redrive.JobCompleted)
			// The worker fails again: the record it read carries generation 1.
			w.dieAgain(t, id)
			pass(time.Second)
			j = r.redrive(`{"ids":["` + string(id) + `"]}`)
			j = r.until(j.ID, time.Minute, redrive.JobCompleted)
			if s, _ := w.truth(id); j.Redriven != 1 || s.Generation != 2 {
				t.Errorf("redriven %d, generation %d; want 1 and 2", j.Redriven, s.Generation)
			}
		})
	})
}

func (w *world) dieAgain(t *testing.T, id task.ID) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	last := w.tasks[id][len(w.tasks[id])-1]
	s, _ := w.state(id, int64(len(w.results[topic.ResultsPartition(id, partitions)])))
	w.sequence++
	w.appendLetter(t, last, deadletter.Letter{
		TaskID: id, Disposition: deadletter.Exhausted, Code: "timeout", Generation: s.Generation,
		Origin: deadletter.Origin{Topic: last.topic, Offset: w.sequence}, DeadAt: time.Now(),
	})
	w.result(&terminal.Terminal{SchemaVersion: 1, TaskID: id, Status: task.Dead, Generation: &s.Generation, Tenant: "dev", EndedAt: time.Now()})
}

func TestRate(t *testing.T) {
	for _, rate := range []float64{1, 50, 500} {
		t.Run(fmt.Sprintf("%g a second is kept within 10 percent, with a slow projection and a broker that stalls", rate), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.lag = 80 * time.Millisecond
				n := int(rate * min(20, 6000/rate))
				for range n {
					w.die(t, death{})
				}
				fetches := 0
				r := w.start(t, "a", func(op string) bool {
					if op == "before fetch" {
						if fetches++; fetches%int(8*rate) == 0 { // for one second in nine nothing is answered
							w.mu.Unlock()
							pass(time.Second)
							w.mu.Lock()
						}
					}
					return false
				})
				pass(time.Second)
				j := r.redrive(fmt.Sprintf(`{"filter":{},"rate":%g,"canary":0}`, rate))
				pass(9 * time.Second)
				if got := r.job(j.ID).RateReached; got < 0.7*rate || got > 1.1*rate {
					t.Errorf("the job says %.1f a second; want about %g", got, rate)
				}
				r.until(j.ID, 2*time.Minute, redrive.JobCompleted)
				w.mu.Lock()
				defer w.mu.Unlock()
				span := w.order[len(w.order)-1].Sub(w.order[0]).Seconds()
				if got := float64(n-1) / span; got < 0.9*rate || got > 1.1*rate {
					t.Errorf("moved %.1f a second; want %g within 10%%", got, rate)
				}
				for i := int(10 * rate); i < n; i++ { // made good, but never in a rush
					if took := w.order[i].Sub(w.order[i-int(10*rate)]); took < 9*time.Second {
						t.Fatalf("ten seconds' letters moved in %s", took)
					}
				}
			})
		})
	}
	t.Run("a job begins slowly", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			for range 2000 {
				w.die(t, death{})
			}
			r := w.start(t, "a", nil, func(p *redrive.Params) { p.RampUp = 10 * time.Second })
			pass(time.Second)
			j := r.redrive(`{"filter":{},"rate":100,"canary":0}`)
			r.until(j.ID, time.Minute, redrive.JobCompleted)
			in := func(second int) (n int) {
				for _, at := range w.order {
					if s := at.Sub(w.order[0]); s >= time.Duration(second)*time.Second && s < time.Duration(second+1)*time.Second {
						n++
					}
				}
				return n
			}
			if first, fifth, later := in(0), in(4), in(15); first > 20 || fifth < 40 || fifth > 60 || later < 95 || later > 105 {
				t.Errorf("%d letters in the first second, %d in the fifth, %d in the sixteenth; want about 14, 50 and 100", first, fifth, later)
			}
		})
	})
}

func TestOrders(t *testing.T) {
	t.Run("pause stops the work, resume goes on where it stood", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			for range 100 {
				w.die(t, death{})
			}
			a, b := w.start(t, "a", nil), w.start(t, "b", nil)
			pass(time.Second)
			j := a.redrive(`{"filter":{},"rate":10,"canary":0}`)
			pass(3 * time.Second)
			b.do("POST", "/admin/v1/redrives/"+j.ID+"/pause", "", nil)
			j = a.until(j.ID, time.Second, redrive.JobPaused)
			if j.Redriven < 25 || j.Redriven > 35 || j.Owner != "" {
				t.Errorf("paused at %d with owner %q; want about 30 and none", j.Redriven, j.Owner)
			}
			at := j.Redriven
			pass(time.Minute)
			if j = a.job(j.ID); j.Redriven != at {
				t.Errorf("moved %d letters while paused", j.Redriven-at)
			}
			b.do("POST", "/admin/v1/redrives/"+j.ID+"/resume", "", nil)
			j = a.until(j.ID, time.Minute, redrive.JobCompleted)
			if j.Redriven != 100 || len(w.order) != 100 {
				t.Errorf("redriven %d with %d publications; want 100 each", j.Redriven, len(w.order))
			}
		})
	})
	t.Run("cancel ends it for good", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			for range 100 {
				w.die(t, death{})
			}
			r := w.start(t, "a", nil)
			pass(time.Second)
			j := r.redrive(`{"filter":{},"rate":10,"canary":0}`)
			pass(time.Second)
			for range 2 { // idempotent
				if code, e := r.do("POST", "/admin/v1/redrives/"+j.ID+"/cancel", "", nil); code != http.StatusOK {
					t.Fatalf("cancel answered %d: %s", code, e.Message)
				}
			}
			j = r.until(j.ID, time.Second, redrive.JobCancelled)
			if j.Remaining == 0 || j.Remaining != 100-j.Redriven {
				t.Errorf("remaining %d, redriven %d", j.Remaining, j.Redriven)
			}
			if code, _ := r.do("POST", "/admin/v1/redrives/"+j.ID+"/resume", "", nil); code != http.StatusConflict {
				t.Errorf("resume answered %d; want 409", code)
			}
		})
	})
	t.Run("a projection that stands still pauses the job, and resume completes it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			ids := make([]task.ID, 10)
			for i := range ids {
				ids[i], _ = w.die(t, death{})
			}
			r := w.start(t, "a", nil)
			pass(time.Second)
			w.mu.Lock()
			w.lag = time.Hour
			w.mu.Unlock()
			j := r.redrive(everything)
			j = r.until(j.ID, time.Minute, redrive.JobPaused)
			if !strings.Contains(j.Reason, "does not advance") || j.Redriven+j.Skipped != 0 {
				t.Errorf("job = %+v; want paused with the cause and nothing decided", j)
			}
			w.mu.Lock()
			w.lag = 0
			w.mu.Unlock()
			r.do("POST", "/admin/v1/redrives/"+j.ID+"/resume", "", nil)
			j = r.until(j.ID, time.Minute, redrive.JobCompleted)
			for _, id := range ids {
				if _, reopenings := w.truth(id); reopenings != 1 || len(w.tasks[id]) != 1 {
					t.Errorf("%s: %d reopenings, %d publications; want 1 each", id, reopenings, len(w.tasks[id]))
				}
			}
			if j.Redriven != 10 {
				t.Errorf("redriven %d; want 10", j.Redriven)
			}
		})
	})
	t.Run("a worker that is drained hands the job over at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			for range 100 {
				w.die(t, death{})
			}
			a := w.start(t, "a", nil)
			pass(time.Second)
			j := a.redrive(`{"filter":{},"rate":20,"canary":0}`)
			pass(2 * time.Second)
			b := w.start(t, "b", nil)
			a.stop()
			began := time.Now()
			b.until(j.ID, time.Minute, redrive.JobCompleted)
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("the rest took %s; want no lease to be waited for", took)
			}
			if len(w.order) != 100 {
				t.Errorf("%d publications; want 100: a drain repeats nothing", len(w.order))
			}
		})
	})
}

func TestTwoWorkersOfOneName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for range 20 {
			w.die(t, death{})
		}
		r := w.start(t, "same", nil)
		w.start(t, "same", nil)
		pass(time.Second)
		j := r.redrive(`{"filter":{},"rate":20,"canary":0}`)
		r.until(j.ID, time.Minute, redrive.JobCompleted)
		if len(w.order) != 20 {
			t.Errorf("%d publications; want 20: only one of them owns the job", len(w.order))
		}
	})
}
