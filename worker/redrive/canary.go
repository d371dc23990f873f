package redrive

import (
	"context"
	"time"

	"github.com/penstock/penstock/internal/lifecycle"
)

// canary redrives letters until size tasks were put back, and waits what
// becomes of them. It returns the letters that are left. When too many ended
// badly it stops the job: the caller then finds the intake closed.
func (u *runner) canary(todo []Ref, size int) (left []Ref, err error) {
	for len(todo) > 0 && u.intake.Err() == nil {
		missing := size - u.guard.watched()
		if missing <= 0 {
			return todo, u.judge()
		}
		round := todo[:min(missing, len(todo))]
		if err := u.handOut(round); err != nil {
			return nil, err
		}
		todo = todo[len(round):] // a closed intake left some of them; then nothing more is handed out
	}
	return todo, nil
}

// judge waits until the canary's verdict is certain and keeps it. The tasks
// may take long; an operator can pause or cancel the job meanwhile.
func (u *runner) judge() error {
	tick := time.NewTicker(u.r.p.LookEvery)
	defer tick.Stop()
	for {
		if err := u.r.retry(u.work, func() error { return u.guard.look(u.work) }); err != nil {
			return err
		}
		if decided, reason := u.guard.canary(); reason != "" {
			u.stop(errAborted{reason})
			return nil
		} else if decided {
			return u.r.retry(u.work, func() error { _, err := u.r.journal.Say(u.work, u.report(entryJudged)); return err })
		}
		select {
		case <-tick.C:
		case <-u.intake.Done():
			return nil
		}
	}
}

// keepGuard stops the job when too many of its tasks end badly. While the
// store does not answer it learns nothing; the letters then stop by themselves.
func (u *runner) keepGuard(ctx context.Context) {
	for lifecycle.Pause(ctx, u.r.p.LookEvery) {
		if err := u.guard.look(ctx); err != nil {
			if ctx.Err() == nil {
				u.r.log.Warn("ends of redriven tasks are not known, asking again", "job", u.t.job, "err", err)
			}
			continue
		}
		if reason := u.guard.tripped(); reason != "" {
			u.stop(errAborted{reason})
			return
		}
	}
}
