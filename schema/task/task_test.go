package task_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/penstock/penstock/schema/task"
	"pgregory.net/rapid"
)

func TestParamsInt(t *testing.T) {
	for name, c := range map[string]struct {
		raw  string
		want int
	}{
		"a whole number":       {"12", 12},
		"a negative number":    {"-3", -3},
		"zero":                 {"0", 0},
		"a fraction":           {"1.5", 7},
		"a number in a string": {`"12"`, 7},
		"null":                 {"null", 7},
		"too large":            {"99999999999999999999", 7},
		"a list":               {"[1]", 7},
		"not JSON":             {"1 2", 7},
		"nothing":              {"", 7},
	} {
		if got := (task.Params{"max_tokens": json.RawMessage(c.raw)}).Int("max_tokens", 7); got != c.want {
			t.Errorf("%s: Int = %d, want %d", name, got, c.want)
		}
	}
	if got := task.Params(nil).Int("max_tokens", 7); got != 7 {
		t.Errorf("no parameters at all: Int = %d, want 7", got)
	}
}

func TestThePartitionKeyIsTheOrderingKeyIfThereIsOne(t *testing.T) {
	tk := task.Task{ID: "task_1"}
	if got := tk.PartitionKey(); got != "task_1" {
		t.Errorf("without an ordering key: %q, want the id", got)
	}
	tk.OrderingKey = "session-9"
	if got := tk.PartitionKey(); got != "session-9" {
		t.Errorf("with an ordering key: %q", got)
	}
}

func TestRememberKeepsTheLatestAttemptsAndTheFirstFailure(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.IntRange(1, 3*task.MaxHistory).Draw(r, "attempts")
		ok := rapid.IntRange(0, 3).Draw(r, "attempts without a code")
		var p task.Progress
		for i := range n {
			a := task.Attempt{N: i + 1, EndedAt: time.Unix(int64(i+1), 0)}
			if i >= ok {
				a.Code = "unavailable"
			}
			p = p.Remember(a)
		}
		if want := min(n, task.MaxHistory); len(p.History) != want {
			r.Fatalf("%d attempts leave a history of %d, want %d", n, len(p.History), want)
		}
		for i, a := range p.History {
			if want := n - len(p.History) + i + 1; a.N != want {
				r.Fatalf("history[%d] is attempt %d, want %d: oldest first, latest kept", i, a.N, want)
			}
		}
		want := time.Time{}
		if n > ok {
			want = time.Unix(int64(ok+1), 0)
		}
		if !p.FirstFailure.Equal(want) {
			r.Fatalf("first failure %v, want %v", p.FirstFailure, want)
		}
	})
}

func TestRememberDoesNotWriteIntoAnotherCopysHistory(t *testing.T) {
	roomy := make([]task.Attempt, 1, 8)
	roomy[0] = task.Attempt{N: 1}
	p := task.Progress{History: roomy}
	before := slices.Clone(roomy[:cap(roomy)])

	left, right := p.Remember(task.Attempt{N: 2, Backend: "a"}), p.Remember(task.Attempt{N: 2, Backend: "b"})
	left.History[0].Backend = "changed"
	if diff := cmp.Diff(before, roomy[:cap(roomy)]); diff != "" {
		t.Errorf("the first copy's memory changed (-before +after):\n%s", diff)
	}
	if got := []string{left.History[1].Backend, right.History[1].Backend, right.History[0].Backend}; !slices.Equal(got, []string{"a", "b", ""}) {
		t.Errorf("two copies share a history: %v", got)
	}
}

func TestEveryStatusIsListedOnceAndTheLastFiveEnd(t *testing.T) {
	var ends []task.Status
	seen := map[task.Status]bool{}
	for _, s := range task.Statuses() {
		if seen[s] {
			t.Errorf("%s is listed twice", s)
		}
		seen[s] = true
		if s.Terminal() {
			ends = append(ends, s)
		}
	}
	if want := []task.Status{task.Succeeded, task.Failed, task.Cancelled, task.Expired, task.Dead}; !slices.Equal(ends, want) {
		t.Errorf("terminal statuses %v, want %v", ends, want)
	}
	if task.Status("").Terminal() || task.Status("reopened").Terminal() {
		t.Error("no status, or a reopening, ends a task")
	}
}
