package redrive

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// inFlight is how many letters of a job are between steps at most. Letters
// are handed out in the order of work, so what a crash left half done is among
// the first inFlight letters without an outcome. Never lower it: an older
// worker's letters would be overlooked.
const inFlight = 64

// Causes for which a runner stops handing out letters.
var (
	errStopped  = errors.New("the job was paused or cancelled")
	errReplaced = errors.New("another worker owns the job")
)

// errAborted is the cause for which a runner ends its job for good.
type errAborted struct{ reason string }

// Error implements error.
func (e errAborted) Error() string { return e.reason }

// runner runs one tenure of one job.
type runner struct {
	r      *Redriver
	t      tenure
	intake context.Context // done: hand out no more letters
	stop   context.CancelCauseFunc
	work   context.Context // done: give up letters in flight too
	guard  *guard
}

// runJob runs a tenure to its end: nothing left, a stop, another owner, or
// ctx.
func (r *Redriver) runJob(ctx context.Context, t tenure) {
	work, giveUp := context.WithCancelCause(context.WithoutCancel(ctx))
	defer giveUp(nil)
	intake, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	u := &runner{r: r, t: t, intake: intake, stop: stop, work: work, guard: newGuard(r.store, &t.spec, t.revived)}
	r.log.Info("redrive job runs", "job", t.job, "letters", len(t.undone), "taken_over", t.inherited)

	u.look() // a job may be claimed only to be wound up
	var side sync.WaitGroup
	sideCtx, endSide := context.WithCancel(work)
	side.Go(func() { u.watch(sideCtx) })
	side.Go(func() { u.beat(sideCtx) })
	side.Go(func() { u.drain(sideCtx, ctx, giveUp) })
	err := u.run()
	endSide()
	side.Wait()
	u.release(err)
}

// run finishes what was begun, lets the canary go first and hands out the
// rest. It returns with nothing in flight.
func (u *runner) run() (err error) {
	todo := u.t.undone
	if u.t.inherited {
		if todo, err = u.finishBegun(todo); err != nil {
			return err
		}
	}
	if size := u.t.spec.Canary; size > 0 && size < u.t.total && !u.t.judged {
		if todo, err = u.canary(todo, size); err != nil {
			return err
		}
	}
	var side sync.WaitGroup
	sideCtx, endSide := context.WithCancel(u.work)
	side.Go(func() { u.keepGuard(sideCtx) })
	err = u.handOut(todo)
	endSide()
	side.Wait()
	return err
}

// drain gives letters in flight a while to finish once the process stops.
func (u *runner) drain(ctx, process context.Context, giveUp context.CancelCauseFunc) {
	select {
	case <-process.Done():
	case <-ctx.Done():
		return
	}
	grace := time.NewTimer(u.r.p.DrainGrace)
	defer grace.Stop()
	select {
	case <-grace.C:
		giveUp(context.Cause(process))
	case <-ctx.Done():
	}
}

// handOut starts each letter when the rate allows it, and waits for them. The
// first error stops the job.
func (u *runner) handOut(todo []Ref) error {
	var letters errgroup.Group
	letters.SetLimit(inFlight)
	pace := newPacer(u.t.spec.Rate, u.r.p.RampUp)
	for _, at := range todo {
		if pace.wait(u.intake) != nil {
			break
		}
		letters.Go(func() error {
			if u.intake.Err() != nil { // stopped while it waited for a slot
				return nil
			}
			err := u.putBack(at)
			if err != nil {
				u.stop(err)
			}
			return err
		})
	}
	return letters.Wait()
}

func (u *runner) putBack(at Ref) error {
	began := time.Now()
	err := u.r.retry(u.work, func() error {
		s, err := u.r.putBack(u.work, &u.t, at)
		if err != nil {
			return err
		}
		return u.mark(s)
	})
	if err == nil {
		u.r.metrics.took.Observe(time.Since(began).Seconds())
	}
	return err
}

// mark does step 4.
func (u *runner) mark(s step) error {
	_, err := u.r.journal.Say(u.work, entry{Type: entryStep, Job: u.t.job, Owner: u.r.p.Owner, Epoch: u.t.epoch, Step: &s})
	if err != nil {
		return err
	}
	u.r.metrics.outcomes.WithLabelValues(string(s.Outcome), string(s.Reason)).Inc()
	if s.Outcome == Redriven {
		u.guard.watch(revived{s.TaskID, s.Generation})
	}
	return nil
}

// finishBegun completes what the owner before left between steps, and returns
// the rest. It ignores pause and cancel, because a reopened task that is not
// published would wait for nobody.
func (u *runner) finishBegun(todo []Ref) ([]Ref, error) {
	var g errgroup.Group
	var left []Ref
	first := todo[:min(inFlight, len(todo))]
	finished := make([]bool, len(first))
	for i, at := range first {
		g.Go(func() error {
			return u.r.retry(u.work, func() error {
				s, begun, err := u.r.finishBegun(u.work, u.t.job, at)
				if err != nil || !begun {
					return err
				}
				finished[i] = true
				return u.mark(s)
			})
		})
	}
	err := g.Wait()
	for i, at := range first {
		if !finished[i] {
			left = append(left, at)
		}
	}
	return append(left, todo[len(first):]...), err
}

// watch stops the intake when the ledger says so.
func (u *runner) watch(ctx context.Context) {
	for {
		changed := u.r.ledger.Changed()
		if u.look() {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// look reports whether the intake is to stop, and stops it then.
func (u *runner) look() bool {
	switch u.r.ledger.standing(u.t, u.r.p.Owner) {
	case standStop:
		u.stop(errStopped)
	case standOver:
		u.stop(errReplaced)
	default:
		return false
	}
	return true
}

// beat tells the others that the owner lives. A beat that is lost is made good
// by the next: the lease holds three.
func (u *runner) beat(ctx context.Context) {
	tick := time.NewTicker(u.r.p.Lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if _, err := u.r.journal.Say(ctx, u.report(entryBeat)); err != nil && ctx.Err() == nil {
				u.r.log.Warn("redrive job beat not written", "job", u.t.job, "err", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// report is an entry of the owner with what it knows of its tasks.
func (u *runner) report(t entryType) entry {
	seen := u.guard.outcomes()
	return entry{Type: t, Job: u.t.job, Owner: u.r.p.Owner, Epoch: u.t.epoch, Outcomes: &seen}
}

// release gives the job back. It says nothing when letters may be half done
// and this worker is going away: then the lease runs out, and the next owner
// looks for them. An error of Kafka, Redis or the projection pauses the job;
// whoever resumes it repeats the letters without an outcome.
func (u *runner) release(err error) {
	cause := context.Cause(u.intake)
	if errors.Is(cause, errReplaced) || u.work.Err() != nil {
		u.r.log.Warn("redrive job left to another worker", "job", u.t.job, "err", errors.Join(cause, err))
		return
	}
	e := u.report(entryReleased)
	if abort, ok := errors.AsType[errAborted](cause); ok && err == nil {
		e.Reason, e.Aborted = abort.reason, true
		u.r.metrics.aborts.Inc()
	} else if err != nil {
		e.Reason = err.Error()
		u.r.metrics.stops.Inc()
	}
	if _, sayErr := u.r.journal.Say(u.work, e); sayErr != nil {
		u.r.log.Warn("redrive job not released, its lease will run out", "job", u.t.job, "err", sayErr)
		return
	}
	u.r.log.Info("redrive job released", "job", u.t.job, "reason", e.Reason, "aborted", e.Aborted)
}

// retry repeats do until it succeeds, ctx ends or the patience is over. All
// steps may be repeated, so an unknown outcome is simply tried again.
func (r *Redriver) retry(ctx context.Context, do func() error) error {
	until := time.Now().Add(r.p.Patience)
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := do()
		if err == nil || errors.Is(err, ErrProjection) || ctx.Err() != nil || time.Now().Add(wait).After(until) {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}
