package bulk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/lifecycle"
)

// Causes for which a tenure ends before its batch.
var (
	errReplaced = errors.New("another process owns the batch")
	errDraining = errors.New("the process stops")
)

// runner runs one tenure of one batch. Its fields belong to the goroutine of
// work, the contexts aside.
type runner struct {
	d   *Desk
	t   *tenure
	log *slog.Logger

	ctx  context.Context         // done: begin nothing more
	life context.Context         // done: give up writing too
	over context.CancelCauseFunc // ends both

	in      *lines // the requests that nobody has looked at yet; nil once there are none
	again   []*request
	resume  time.Time          // the door refused: nothing is submitted before
	flying  map[int]*flight    // by place
	arrived chan arrival       // of the waiters
	waiting context.Context    // of the waiters
	leave   context.CancelFunc // ends their waits
	waiters sync.WaitGroup
	buffer  buffer

	stopped  Status    // Expired or Cancelled, once no line is submitted any more
	patience time.Time // until when the ends of tasks are waited for, once stopped
}

// drainGrace is for what is collected to be stored once the process stops.
const drainGrace = 5 * time.Second

// run runs a tenure until its batch has ended, another process owns it, or ctx
// ends.
func (d *Desk) run(ctx context.Context, t *tenure) {
	log := d.log.With("batch", t.id, "epoch", t.epoch)
	log.Info("batch runs", "status", t.status, "lines", t.total, "ended", t.counts.Ended())
	life, over := context.WithCancelCause(context.WithoutCancel(ctx))
	defer over(nil)
	begin, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(life, func() { stop(context.Cause(life)) })()
	u := &runner{d: d, t: t, log: log, ctx: begin, life: life, over: over, flying: map[int]*flight{}, arrived: make(chan arrival)}

	var side sync.WaitGroup
	sideCtx, endSide := context.WithCancel(life)
	side.Go(func() { u.watch(sideCtx) })
	side.Go(func() { u.beat(sideCtx) })
	side.Go(func() { u.drain(sideCtx, ctx) })
	err := u.work()
	endSide()
	side.Wait()
	u.release(err)
}

// drain lets what is collected be stored once the process stops, and then ends
// the tenure.
func (u *runner) drain(ctx, process context.Context) {
	select {
	case <-process.Done():
	case <-ctx.Done():
		return
	}
	if lifecycle.Pause(ctx, drainGrace) {
		u.over(errDraining)
	}
}

// work takes the batch from where it stands to its end, and tells whoever wants
// to hear of it. The error says why it did not come to it.
func (u *runner) work() error {
	if !u.t.status.Ended() {
		if err := u.bringToEnd(); err != nil {
			return err
		}
	}
	return u.announce()
}

func (u *runner) bringToEnd() error {
	input, err := u.spool()
	if err != nil {
		return err
	}
	if input == nil {
		return u.lose()
	}
	defer input.Close()
	if u.t.total == 0 {
		if ok, err := u.validate(input); !ok || err != nil {
			return err
		}
	}
	if err := u.runLines(input); err != nil {
		return err
	}
	return u.finalize()
}

// spool brings the file here, checked as a whole: it is read for hours, and no
// store should have to serve one request for so long. Nil: the content is lost.
func (u *runner) spool() (*os.File, error) {
	var input *os.File
	err := u.persist("read input", func(ctx context.Context) (err error) {
		if input, err = u.d.fetch(ctx, u.t); gone(err) {
			u.log.Error("the file of the batch is no longer in the blob store", "err", err)
			return nil
		}
		return err
	})
	return input, err
}

// fetch copies a batch's file to one of this machine that has no name: it goes
// with the process.
func (d *Desk) fetch(ctx context.Context, t *tenure) (_ *os.File, err error) {
	content, err := d.p.Blobs.Open(ctx, t.spec.Content)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	f, err := os.CreateTemp("", "penstock-bulk-*")
	if err != nil {
		return nil, fmt.Errorf("spool file of batch %s: %w", t.id, err)
	}
	err = os.Remove(f.Name())
	if err == nil {
		_, err = io.Copy(f, content)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("spool file of batch %s: %w", t.id, err), f.Close())
	}
	return f, nil
}

// validate checks the file. A batch with faults ends here.
func (u *runner) validate(input *os.File) (ok bool, err error) {
	total, faults, err := u.d.check(&u.t.spec, io.NewSectionReader(input, 0, u.t.spec.Content.Bytes))
	if err != nil {
		return false, err
	}
	if len(faults) > 0 {
		return false, u.tell(entry{Type: entryFailed, Faults: faults})
	}
	u.t.total = total
	return true, u.tell(entry{Type: entryValidated, Total: total})
}

// lose ends a batch whose file is gone, with what it has.
func (u *runner) lose() error {
	return u.end(Failed, []Fault{{Code: "input_file_lost", Message: "the content of the input file is no longer in the blob store; send it again"}})
}

// tell writes an entry of the owner, however long that takes.
func (u *runner) tell(e entry) error {
	e.ID, e.Owner, e.Epoch = u.t.id, u.d.p.Owner, u.t.epoch
	return u.persist("write "+string(e.Type), func(ctx context.Context) error {
		at, err := u.d.journal.Say(ctx, e)
		if err == nil {
			err = u.d.ledger.Await(ctx, at)
		}
		return err
	})
}

const (
	persistFirst = 100 * time.Millisecond
	persistMost  = 5 * time.Second
)

// persist repeats do until it succeeds: all that a runner does may be done twice.
// It ends with the tenure.
func (u *runner) persist(what string, do func(context.Context) error) error {
	for wait := persistFirst; ; wait = min(2*wait, persistMost) {
		err := do(u.life)
		if err == nil {
			return nil
		}
		if u.life.Err() != nil {
			return errors.Join(context.Cause(u.life), err)
		}
		u.d.metrics.stalls.Inc()
		u.log.Warn("batch waits, trying again", "what", what, "err", err, "wait", wait)
		if !lifecycle.Pause(u.life, wait) {
			return errors.Join(context.Cause(u.life), err)
		}
	}
}

// watch ends the tenure when the ledger says that it is over.
func (u *runner) watch(ctx context.Context) {
	for {
		changed := u.d.ledger.Changed()
		if _, on := u.d.ledger.standing(u.t, u.d.p.Owner); !on {
			u.over(errReplaced)
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// beat tells the others that the owner lives. A beat that is lost is made good
// by the next: the lease holds three.
func (u *runner) beat(ctx context.Context) {
	for lifecycle.Pause(ctx, u.d.p.Lease/3) {
		_, err := u.d.journal.Say(ctx, entry{Type: entryBeat, ID: u.t.id, Owner: u.d.p.Owner, Epoch: u.t.epoch})
		if err != nil && ctx.Err() == nil {
			u.log.Warn("batch beat not written", "err", err)
		}
	}
}

// release gives the batch back where it has not ended. What cannot be said now
// is found out by the end of the lease.
func (u *runner) release(err error) {
	if _, on := u.d.ledger.standing(u.t, u.d.p.Owner); !on {
		u.log.Info("batch left", "ended", err == nil)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(u.life), drainGrace)
	defer cancel()
	if _, sayErr := u.d.journal.Say(ctx, entry{Type: entryReleased, ID: u.t.id, Owner: u.d.p.Owner, Epoch: u.t.epoch}); sayErr != nil {
		u.log.Warn("batch not released, its lease will run out", "err", sayErr)
		return
	}
	u.log.Info("batch released", "reason", err)
}
