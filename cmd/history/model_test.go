package history

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/penstock/penstock/schema/task"
)

// did is one call of a history that is written down by hand, in milliseconds.
type did struct {
	from, to int
	kind     Kind
	saw      Seen
}

func TestWhatARegisterCannotShowIsRefused(t *testing.T) {
	open := Seen{Status: task.Running}
	end := func(s task.Status, generation uint8, mark string) Seen {
		return Seen{Status: s, Generation: generation, Mark: mark}
	}
	done, dead := end(task.Succeeded, 0, "a"), end(task.Dead, 0, "d")
	again := Seen{Reopened: true}
	for name, tt := range map[string]struct {
		history []did
		ok      bool
	}{
		"an end that stays":                                 {[]did{{0, 1, Read, open}, {2, 3, Read, done}, {4, 5, Read, done}}, true},
		"an end that turns into another":                    {[]did{{0, 1, Read, done}, {2, 3, Read, end(task.Cancelled, 0, "c")}}, false},
		"an end that turns into another of the same status": {[]did{{0, 1, Read, done}, {2, 3, Read, end(task.Succeeded, 0, "b")}}, false},
		"an end that is hidden again":                       {[]did{{0, 1, Read, done}, {2, 3, Read, open}}, true},
		"an open read that began before the end was seen":   {[]did{{0, 9, Read, open}, {1, 2, Read, done}}, true},
		"a cancel that loses":                               {[]did{{0, 1, Read, done}, {2, 3, Cancel, done}}, true},
		"a cancel that claims to have won":                  {[]did{{0, 1, Read, done}, {2, 3, Cancel, end(task.Cancelled, 0, "c")}}, false},
		"a cancel that wins":                                {[]did{{0, 3, Cancel, end(task.Cancelled, 0, "c")}, {4, 5, Read, end(task.Cancelled, 0, "c")}}, true},
		"a death put back to work":                          {[]did{{0, 1, Read, dead}, {2, 5, Redrive, again}, {6, 7, Read, end(task.Succeeded, 1, "b")}}, true},
		"a death nobody saw put back":                       {[]did{{0, 1, Read, open}, {2, 5, Redrive, again}, {6, 7, Read, end(task.Dead, 1, "e")}}, true},
		"a success put back to work":                        {[]did{{0, 1, Read, done}, {2, 5, Redrive, again}}, false},
		"a death shown after the redrive":                   {[]did{{0, 1, Read, dead}, {2, 5, Redrive, again}, {6, 7, Read, dead}}, false},
		"two generations for one redrive":                   {[]did{{0, 1, Read, dead}, {2, 5, Redrive, again}, {6, 7, Read, end(task.Dead, 2, "f")}}, false},
		"a generation nobody opened":                        {[]did{{0, 1, Read, end(task.Succeeded, 1, "b")}}, false},
		"a redrive of unknown outcome that happened": {
			[]did{{0, 1, Read, dead}, {2, 3, Redrive, Seen{Unknown: true}}, {8, 9, Read, end(task.Succeeded, 1, "b")}}, true,
		},
		"a redrive of unknown outcome that did not": {
			[]did{{0, 1, Read, dead}, {2, 3, Redrive, Seen{Unknown: true}}, {8, 9, Read, dead}}, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := NewRecorder()
			for i, d := range tt.history {
				r.note(i, call{"task", d.kind}, time.Duration(d.from)*time.Millisecond, time.Duration(d.to)*time.Millisecond, d.saw)
			}
			if err := r.Check(filepath.Join(t.TempDir(), "history.html")); (err == nil) != tt.ok {
				t.Error(err)
			}
		})
	}
}

func TestTasksAreCheckedApart(t *testing.T) {
	r := NewRecorder()
	r.note(0, call{"a", Read}, 0, 1, Seen{Status: task.Succeeded, Mark: "a"})
	r.note(1, call{"b", Read}, 2, 3, Seen{Status: task.Failed, Mark: "b"})
	if err := r.Check(filepath.Join(t.TempDir(), "history.html")); err != nil {
		t.Error(err)
	}
}
