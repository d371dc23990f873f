package redrive

import (
	"time"

	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

const (
	// lastForced is the last generation that a redrive opens even if forced. It
	// leaves a few of the 256 for a person who knows why.
	lastForced = event.MaxGeneration - 5
	// leastTime is what a redriven task must at least have until its result is
	// past its time to live.
	leastTime = time.Minute
)

// loops says whether one more redrive of a task that died in a generation is
// one too many. A generation is how often the task was redriven before.
func (r *Redriver) loops(generation uint8, force bool) Reason {
	switch {
	case generation >= lastForced:
		return ReasonGenerationLimit
	case int(generation) >= r.p.MaxRedrives && !force:
		return ReasonRedrivenTooOften
	}
	return ReasonNone
}

// until is the time up to which a task may be redriven; zero: for ever. A
// result that comes later would be ignored, since the answer to who asks for
// it is 410 by then, and never 200 again.
func (r *Redriver) until(id task.ID) time.Time {
	if r.p.GoneAtFunc == nil || id == "" {
		return time.Time{}
	}
	return r.p.GoneAtFunc(id).Add(-leastTime).UTC()
}

func (r *Redriver) past(until time.Time) bool {
	return !until.IsZero() && r.pub.BrokerNow().After(until)
}

// refusal says why a letter must not be reopened, whatever its task's state.
func (r *Redriver) refusal(c *candidate, force bool) Reason {
	if c.task == nil || c.letter.Disposition == deadletter.Undecodable {
		return ReasonUndecodable
	}
	if reason := r.loops(c.letter.Generation, force); reason != ReasonNone {
		return reason
	}
	switch {
	case r.past(r.until(c.task.ID)):
		return ReasonTooOld
	case c.pool == "":
		return ReasonNoPool
	}
	return ReasonNone
}

// refused is refusal for a summary: the dry run asks it.
func (r *Redriver) refused(l *Letter, force bool) Reason {
	switch {
	case l.State == LetterRedriven:
		return ReasonAlreadyRedriven
	case l.TaskID == "" || l.Disposition == deadletter.Undecodable || l.Kind == "":
		return ReasonUndecodable
	}
	if reason := r.loops(l.Generation, force); reason != ReasonNone {
		return reason
	}
	switch {
	case r.past(l.RedrivableUntil):
		return ReasonTooOld
	case l.Pool == "":
		return ReasonNoPool
	}
	return ReasonNone
}
