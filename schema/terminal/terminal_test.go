package terminal_test

import (
	"encoding/json"
	"math"
	"slices"
	"testing"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"pgregory.net/rapid"
)

// ends is a terminal of a generation; a negative one says none.
func ends(s task.Status, generation int) *terminal.Terminal {
	t := &terminal.Terminal{SchemaVersion: task.SchemaVersion, TaskID: "task_1", Status: s}
	if generation >= 0 {
		g := uint8(generation)
		t.Generation = &g
	}
	return t
}

// opens is a reopening by a job.
func opens(generation int, job string) *terminal.Terminal {
	t := ends(terminal.Reopened, generation)
	t.RedriveJob = job
	return t
}

func TestTheFirstTerminalOfTheOpenGenerationWins(t *testing.T) {
	const none = -1
	open := terminal.State{}
	dead := terminal.State{Status: task.Dead, Offset: 9}
	again := terminal.State{Generation: 1, Offset: 10, RedriveJob: "job-1"}
	last := terminal.State{Generation: math.MaxUint8, Status: task.Dead, Offset: 9}
	for name, c := range map[string]struct {
		from   terminal.State
		record *terminal.Terminal
		offset int64
		want   terminal.State
		took   bool
	}{
		"a success ends an open task":                                {open, ends(task.Succeeded, 0), 4, terminal.State{Status: task.Succeeded, Offset: 4}, true},
		"also at the first offset of the log":                        {open, ends(task.Succeeded, 0), 0, terminal.State{Status: task.Succeeded}, true},
		"a cancel without generation ends generation 0":              {open, ends(task.Cancelled, none), 4, terminal.State{Status: task.Cancelled, Offset: 4}, true},
		"a terminal of a later generation is ignored":                {open, ends(task.Succeeded, 1), 4, open, false},
		"a second terminal is ignored":                               {dead, ends(task.Succeeded, 0), 12, dead, false},
		"a late cancel is ignored":                                   {dead, ends(task.Cancelled, none), 12, dead, false},
		"a redrive opens the next generation":                        {dead, opens(1, "job-1"), 10, again, true},
		"a redrive cannot skip a generation":                         {dead, opens(2, "job-1"), 10, dead, false},
		"a redrive cannot stay in its generation":                    {dead, opens(0, "job-1"), 10, dead, false},
		"a redrive names its generation":                             {dead, opens(none, "job-1"), 10, dead, false},
		"an open task is not reopened":                               {open, opens(1, "job-1"), 10, open, false},
		"a second redrive is ignored":                                {again, opens(1, "job-2"), 11, again, false},
		"a redrive of an open redrive is ignored":                    {again, opens(2, "job-2"), 11, again, false},
		"generation 255 is the last":                                 {last, opens(0, "job-1"), 10, last, false},
		"an old generation's terminal does not end the new one":      {again, ends(task.Succeeded, 0), 11, again, false},
		"the new generation's terminal does":                         {again, ends(task.Succeeded, 1), 11, terminal.State{Generation: 1, Status: task.Succeeded, Offset: 11, RedriveJob: "job-1"}, true},
		"a cancel without generation ends the one that is open":      {again, ends(task.Cancelled, none), 11, terminal.State{Generation: 1, Status: task.Cancelled, Offset: 11, RedriveJob: "job-1"}, true},
		"a replayed cancel does not end a generation opened since":   {again, ends(task.Cancelled, none), 8, again, false},
		"the record that opened the generation is not applied again": {again, ends(task.Expired, none), 10, again, false},
		"a state that ends nothing is ignored":                       {open, ends(task.Running, 0), 4, open, false},
		"no status is ignored":                                       {open, ends("", 0), 4, open, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, took := c.from.Apply(c.record, c.offset)
			if got != c.want || took != c.took {
				t.Errorf("Apply = %+v, %t, want %+v, %t", got, took, c.want, c.took)
			}
		})
	}
}

func TestOnlyADeadTaskIsReopened(t *testing.T) {
	for _, s := range task.Statuses() {
		if !s.Terminal() {
			continue
		}
		ended, _ := terminal.State{}.Apply(ends(s, 0), 1)
		if _, took := ended.Apply(opens(1, "job"), 2); took != (s == task.Dead) {
			t.Errorf("a task that %s: reopened %t", s, took)
		}
	}
}

// anyRecord draws what may lie on the results topic for one task, sense or not.
func anyRecord() *rapid.Generator[*terminal.Terminal] {
	statuses := append(task.Statuses(), terminal.Reopened, terminal.Reopened, task.Dead, task.Dead)
	return rapid.Custom(func(t *rapid.T) *terminal.Terminal {
		r := ends(rapid.SampledFrom(statuses).Draw(t, "status"), rapid.IntRange(-1, 3).Draw(t, "generation"))
		if r.Status == terminal.Reopened {
			r.RedriveJob = rapid.SampledFrom([]string{"job-a", "job-b"}).Draw(t, "job")
		}
		return r
	})
}

// winner is the rule of the package, told a second way: search generation after
// generation instead of folding.
func winner(log []*terminal.Terminal) terminal.State {
	s, from := terminal.State{}, 0
	for {
		end := slices.IndexFunc(log[from:], func(r *terminal.Terminal) bool {
			return r.Status.Terminal() && (r.Generation == nil || *r.Generation == s.Generation)
		})
		if end < 0 {
			return s
		}
		s.Status, s.Offset = log[from+end].Status, int64(from+end)
		from += end + 1
		next := slices.IndexFunc(log[from:], func(r *terminal.Terminal) bool {
			return r.Status == terminal.Reopened && r.Generation != nil && int(*r.Generation) == int(s.Generation)+1
		})
		if s.Status != task.Dead || next < 0 {
			return s
		}
		s = terminal.State{Generation: s.Generation + 1, Offset: int64(from + next), RedriveJob: log[from+next].RedriveJob}
		from += next + 1
	}
}

func TestTheFoldAgreesWithASearchOfTheLog(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		log := rapid.SliceOfN(anyRecord(), 0, 40).Draw(r, "log")
		s := terminal.State{}
		for offset, rec := range log {
			before := s
			var took bool
			if s, took = s.Apply(rec, int64(offset)); took == (s == before) {
				r.Fatalf("offset %d: took effect %t, and the state went from %+v to %+v", offset, took, before, s)
			}
			if !before.Open() && !s.Open() && s != before {
				r.Fatalf("offset %d changed a winner from %+v to %+v", offset, before, s)
			}
			if s.Generation < before.Generation || s.Generation > before.Generation+1 {
				r.Fatalf("offset %d moved the generation from %d to %d", offset, before.Generation, s.Generation)
			}
		}
		if want := winner(log); s != want {
			r.Fatalf("fold gives %+v, search %+v", s, want)
		}
	})
}

func TestStartingOverAnywhereChangesNothing(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		log := rapid.SliceOfN(anyRecord(), 1, 40).Draw(r, "log")
		once, again := terminal.State{}, terminal.State{}
		for offset, rec := range log {
			once, _ = once.Apply(rec, int64(offset))
		}
		for offset := 0; offset < len(log); offset++ {
			again, _ = again.Apply(log[offset], int64(offset))
			if rapid.IntRange(0, 9).Draw(r, "a crash") == 0 {
				for back := rapid.IntRange(0, offset).Draw(r, "back to"); back <= offset; back++ {
					again, _ = again.Apply(log[back], int64(back))
				}
			}
		}
		if once != again {
			r.Fatalf("read once %+v, with replays %+v", once, again)
		}
	})
}

func TestGenerationsCanBeOpenedUpToTheLast(t *testing.T) {
	s, offset := terminal.State{}, int64(0)
	step := func(r *terminal.Terminal) (took bool) {
		s, took = s.Apply(r, offset)
		offset++
		return took
	}
	for g := range math.MaxUint8 {
		if !step(ends(task.Dead, g)) || !step(opens(g+1, "job")) {
			t.Fatalf("generation %d cannot be reopened from %+v", g, s)
		}
	}
	if !step(ends(task.Dead, math.MaxUint8)) || step(opens(0, "job")) || s.Generation != math.MaxUint8 {
		t.Errorf("the last generation ends as %+v", s)
	}
}

func TestGenerationZeroIsWritten(t *testing.T) {
	for want, g := range map[string]int{
		`{"schema_version":1,"task_id":"task_1","status":"dead","generation":0,"tenant":"","ended_at":"0001-01-01T00:00:00Z"}`: 0,
		`{"schema_version":1,"task_id":"task_1","status":"dead","tenant":"","ended_at":"0001-01-01T00:00:00Z"}`:                -1,
	} {
		if got, err := json.Marshal(ends(task.Dead, g)); err != nil || string(got) != want {
			t.Errorf("generation %d: %s, %v, want %s", g, got, err, want)
		}
	}
}
