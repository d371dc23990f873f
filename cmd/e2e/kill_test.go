//go:build e2e

package e2e_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
)

// TestKillAndDrain is the promise of the whole: 5,000 tasks while one worker
// is killed like a lost machine and another is drained like a rollout.
func TestKillAndDrain(t *testing.T) {
	const tasks = 5_000
	p := params(t)
	p.Workers, p.SimulatorEach = 3, true
	p.Simulate = []string{"--base", "40ms", "--item", "2ms", "--max", "16"} // slow enough to be interrupted
	s := start(t, p)
	killed, drained := s.Workers[0], s.Workers[1]

	list := submitMany(t, s, tasks, func(i int) api.SubmitRequest { return prompt(fmt.Sprint("task ", i)) })
	ran := func() (n int) {
		for _, sim := range s.Simulators {
			n += executions(t, sim).Total
		}
		return n
	}
	eventually(t, time.Minute, "a fifth has run", func() bool { return ran() >= tasks/5 })
	if err := drained.Term(); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "half has run", func() bool { return ran() >= tasks/2 })
	if err := killed.Kill9(); err != nil {
		t.Fatal(err)
	}
	polled := waitAll(t, s, list)

	t.Run("every accepted task has exactly one visible terminal, and the poll tells it", func(t *testing.T) {
		log := outcomes(t)
		for _, id := range list {
			o := log[id]
			switch {
			case o == nil:
				t.Errorf("task %s has no terminal", id)
			case len(o.Wins) != 1 || o.Wins[0].Status != task.Succeeded:
				t.Errorf("task %s has %d visible terminals: %+v", id, len(o.Wins), o.Wins)
			case polled[id].Status != o.Wins[0].Status || polled[id].Output == nil || polled[id].Output.Text != o.Wins[0].Output.Text:
				t.Errorf("task %s: the poll tells something else than the log", id)
			}
		}
	})
	t.Run("nothing that the drained worker began was run again", func(t *testing.T) {
		its := executions(t, s.Simulators[1]).Counts
		if len(its) == 0 {
			t.Fatal("the drained worker ran nothing: the test proves nothing")
		}
		for id, n := range its {
			if n != 1 {
				t.Errorf("task %s ran %d times on the drained worker", id, n)
			}
		}
		for i, sim := range s.Simulators {
			if i == 1 {
				continue
			}
			for id := range executions(t, sim).Counts {
				if its[id] > 0 {
					t.Errorf("task %s ran on the drained worker and again on worker %d", id, i+1)
				}
			}
		}
	})
	t.Run("the killed worker cost no more than what it had in flight", func(t *testing.T) {
		its := executions(t, s.Simulators[0]).Counts
		again := 0
		for id := range executions(t, s.Simulators[2]).Counts {
			if its[id] > 0 {
				again++
			}
		}
		t.Logf("killed worker: began %d tasks, %d of them ran again", len(its), again)
		if again > tasks/10 {
			t.Errorf("%d of %d tasks ran again", again, len(its))
		}
	})
}
