//go:build e2e

package e2e_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
)

// TestAKilledWorkerIsToldAsARestart kills a worker in the midst of answers. Who
// watches its tasks hears that they begin anew, and then all of the text; who
// watches the others hears nothing of it.
func TestAKilledWorkerIsToldAsARestart(t *testing.T) {
	const tasks, partitions = 16, "penstock_worker_partitions"
	p := params(t)
	p.Workers, p.Simulate = 2, []string{"--token", "50ms"}
	s := start(t, p)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	eventually(t, 30*time.Second, "the workers share the partitions", func() bool {
		one, two := metric(ctx, t, s, s.Workers[0], partitions), metric(ctx, t, s, s.Workers[1], partitions)
		return one+two > 0 && 3*min(one, two) >= one+two
	})
	watchers := make([]*told, tasks)
	var all sync.WaitGroup
	begun := make(chan struct{}, tasks)
	for i := range watchers {
		accepted, err := s.Client().Submit(ctx, longStory(), "")
		if err != nil {
			t.Fatal(err)
		}
		c := &told{t: t, restartable: true}
		watchers[i] = c
		all.Go(func() {
			first := sync.OnceFunc(func() { begun <- struct{}{} })
			defer first()
			c.stream(ctx, s.Results[0].URL, accepted.TaskID, func() {
				if len(c.text) > 50 {
					first()
				}
			})
			checkPoll(ctx, t, s.Client(), accepted.TaskID, c)
		})
	}
	for range tasks / 2 { // a worker that has many may let some wait until the others have ended
		<-begun
	}
	if err := s.Workers[0].Kill9(); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	restarted := 0
	for _, c := range watchers {
		c.check()
		if c.restarts > 0 {
			restarted++
		}
	}
	t.Logf("%d of %d streams began anew", restarted, tasks)
	if restarted == 0 || restarted == tasks {
		t.Errorf("%d of %d streams began anew: the kill met all of them, or none", restarted, tasks)
	}
}

// checkPoll compares what a stream told with what a poll tells.
func checkPoll(ctx context.Context, t *testing.T, from interface {
	Wait(ctx context.Context, id task.ID) (api.Task, error)
}, id task.ID, c *told,
) {
	got, err := from.Wait(ctx, id)
	if err != nil || got.Output == nil || got.Output.Text != c.text {
		t.Errorf("task %s: the stream told %d bytes, the poll %+v, %v", id, len(c.text), got, err)
	}
}
