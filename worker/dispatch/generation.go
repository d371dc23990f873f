package dispatch

import (
	"slices"
	"time"

	"github.com/penstock/penstock/schema/fault"
)

// A task runs under one id at a time. A redrive publishes generation g+1 only
// after g was read back as dead and reopened, so whatever is in flight of an
// earlier generation can no longer become visible.

// generationPause is how long a task waits for the run of its former generation
// to end, which was cancelled.
const generationPause = 100 * time.Millisecond

// errSuperseded ends the run of a former generation.
func errSuperseded() error { return fault.New(fault.Fenced, "a later generation of the task began") }

// outdated reports whether a later generation of a task is in flight.
func (l *Loop) outdated(id identity) bool {
	return slices.ContainsFunc(l.byID[id.id], func(e *entry) bool { return e.progress.Generation > id.generation })
}

// supersede ends what is in flight of earlier generations. What is on its way to
// Kafka stays: readers ignore it.
func (l *Loop) supersede(id identity) {
	for _, e := range slices.Clone(l.byID[id.id]) {
		switch {
		case e.state == running:
			e.old = true
			e.now.Cancel(errSuperseded())
		case !e.started():
			l.settle(e, "moot")
		}
	}
}

// otherRuns reports whether another generation of the entry's task still runs.
func (l *Loop) otherRuns(e *entry) bool {
	return slices.ContainsFunc(l.byID[e.task.ID], func(o *entry) bool { return o != e && o.state == running })
}
