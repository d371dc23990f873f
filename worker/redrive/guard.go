package redrive

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

const (
	// maxWatched bounds the redriven tasks of a job whose end is waited for at
	// a time. Beyond it letters are redriven unwatched: a sample will do.
	maxWatched = 1000
	// minWindow is the least number of ends that the stop ratio is taken over,
	// once the canary is over.
	minWindow = 50
	// watchChunk bounds one question to the store.
	watchChunk = 500
)

// revived is a task that a job put back to work.
type revived struct {
	task       task.ID
	generation uint8 // that was opened
}

// fate is what became of a revived task.
type fate int

const (
	fateOpen fate = iota // no end is known
	fateGood
	fateBad // it died again, or ended in a way that no redrive can mend
)

func (x revived) fate(s terminal.State) fate {
	switch {
	case s.Generation > x.generation: // only the dead are reopened
		return fateBad
	case s.Generation < x.generation || !s.Status.Terminal():
		return fateOpen
	case s.Status == task.Succeeded, s.Status == task.Cancelled:
		return fateGood
	}
	return fateBad
}

// Outcomes counts what became of the tasks that a job redrove and watched.
type Outcomes struct {
	Ended     int `json:"ended"`
	DiedAgain int `json:"died_again"` // of those that ended: as dead, failed or expired
}

// guard watches what becomes of a job's tasks and says when the job must stop.
// A new owner of the job makes its own from the latest tasks and the store, so
// nothing of it has to be kept.
type guard struct {
	store  Store
	ratio  float64 // of ends that may be bad
	window int     // ends that the ratio is taken over after the canary

	mu      sync.Mutex
	waiting []revived
	latest  []fate // of those that ended, at most window, oldest first
	seen    Outcomes
}

func newGuard(store Store, spec *Spec, tasks []revived) *guard {
	return &guard{store: store, ratio: spec.StopRatio, window: max(minWindow, spec.Canary), waiting: slices.Clone(tasks)}
}

// watch adds a task.
func (g *guard) watch(x revived) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) < maxWatched {
		g.waiting = append(g.waiting, x)
	}
}

// watched is how many tasks were added.
func (g *guard) watched() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.waiting) + g.seen.Ended
}

// outcomes returns what is known so far.
func (g *guard) outcomes() Outcomes {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.seen
}

// look asks the store what became of the tasks.
func (g *guard) look(ctx context.Context) error {
	g.mu.Lock()
	ask := slices.Clone(g.waiting)
	g.mu.Unlock()
	fates := make(map[revived]fate, len(ask))
	for chunk := range slices.Chunk(ask, watchChunk) {
		ids := make([]task.ID, len(chunk))
		for i, x := range chunk {
			ids[i] = x.task
		}
		states, err := g.store.States(ctx, ids)
		if err != nil {
			return fmt.Errorf("read states of redriven tasks: %w", err)
		}
		for i, s := range states {
			fates[chunk[i]] = chunk[i].fate(s)
		}
	}
	g.note(fates)
	return nil
}

func (g *guard) note(fates map[revived]fate) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = slices.DeleteFunc(g.waiting, func(x revived) bool {
		f := fates[x]
		if f == fateOpen {
			return false
		}
		g.seen.Ended++
		if f == fateBad {
			g.seen.DiedAgain++
		}
		g.latest = append(g.latest, f)
		return true
	})
	g.latest = g.latest[max(0, len(g.latest)-g.window):]
}

// canary judges the first tasks once that is possible, whatever those without
// an end will come to. A reason means that the job must stop.
func (g *guard) canary() (decided bool, reason string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := g.seen.Ended + len(g.waiting)
	may := g.ratio * float64(all)
	switch {
	case float64(g.seen.DiedAgain) > may:
		return true, fmt.Sprintf("%d of the first %d tasks ended badly again, more than %g%%", g.seen.DiedAgain, all, 100*g.ratio)
	case float64(len(g.waiting)+g.seen.DiedAgain) <= may:
		return true, ""
	}
	return false, ""
}

// tripped is the reason to stop that the latest ends give, or empty.
func (g *guard) tripped() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	bad := 0
	for _, f := range g.latest {
		if f == fateBad {
			bad++
		}
	}
	if len(g.latest) < g.window || float64(bad) <= g.ratio*float64(g.window) {
		return ""
	}
	return fmt.Sprintf("%d of the latest %d tasks ended badly again, more than %g%%", bad, g.window, 100*g.ratio)
}
