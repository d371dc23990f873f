package bulk

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// request is a line on its way to the door.
type request struct {
	place      int
	customID   string
	submission ingest.Submission
	answer     AnswerFunc
}

// flight is a line whose task is accepted.
type flight struct {
	place    int
	customID string
	id       task.ID
	answer   AnswerFunc
}

// arrival is a flight whose task has ended. Who takes it releases it: until then
// it takes room that others wait for.
type arrival struct {
	*flight
	view    api.Task
	lost    bool // the task ended so long ago that nobody knows how
	release func()
}

const (
	// chunk is how many lines are submitted in one go, chunkBytes what they may
	// hold together.
	chunk      = 100
	chunkBytes = 8 << 20
	// leastPause is how long a refused line waits where the door does not say.
	leastPause = time.Second
	// lookAgain is how long a waiter pauses after an error.
	lookAgain = time.Second
	// cancels are stopped at a time.
	cancels = 16
)

// runLines gives every line an outcome that is stored.
func (u *runner) runLines(input *os.File) error {
	u.in = newLines(io.NewSectionReader(input, 0, u.t.spec.Content.Bytes), u.d.p.MaxLine)
	u.waiting, u.leave = context.WithCancel(u.ctx)
	defer func() {
		u.leave()
		u.waiters.Wait()
		u.d.metrics.inFlight.Sub(float64(len(u.flying)))
	}()
	for {
		if err := u.look(); err != nil {
			return err
		}
		if err := u.fill(); err != nil {
			return err
		}
		if u.in == nil && len(u.again)+len(u.flying) == 0 {
			return u.flush()
		}
		if err := u.turn(); err != nil {
			return err
		}
		if u.buffer.due(u.d.p.SegmentAge) {
			if err := u.flush(); err != nil {
				return err
			}
		}
	}
}

// turn waits for the next thing to happen. A process that stops stores what it
// has collected first.
func (u *runner) turn() error {
	changed := u.d.ledger.Changed()
	timer := time.NewTimer(u.idle())
	defer timer.Stop()
	select {
	case a := <-u.arrived:
		return u.land(a)
	case <-changed:
	case <-timer.C:
	case <-u.ctx.Done():
		return errors.Join(context.Cause(u.ctx), u.flush())
	}
	return nil
}

// idle is how long nothing needs to be done that nobody announces.
func (u *runner) idle() time.Duration {
	wait := u.t.spec.ExpiresAt.Sub(u.d.p.Publisher.BrokerNow())
	if u.stopped != "" {
		wait = time.Until(u.patience)
	}
	if !u.buffer.empty() {
		wait = min(wait, time.Until(u.buffer.began.Add(u.d.p.SegmentAge)))
	}
	if paused := time.Until(u.resume); paused > 0 {
		wait = min(wait, paused)
	}
	return max(wait, time.Millisecond)
}

// look stops the submitting when the window is over or the client wants it, and
// the waiting when that does not help.
func (u *runner) look() error {
	status, on := u.d.ledger.standing(u.t, u.d.p.Owner)
	switch {
	case !on:
		return errReplaced
	case u.stopped != "":
	case status == Cancelling:
		u.stop(Cancelled)
		u.cancelFlying()
	case u.late():
		u.stop(Expired)
	}
	if u.stopped != "" && !time.Now().Before(u.patience) {
		return u.abandon()
	}
	return nil
}

// late reports whether the window is over.
func (u *runner) late() bool { return !u.d.p.Publisher.BrokerNow().Before(u.t.spec.ExpiresAt) }

func (u *runner) stop(as Status) {
	u.log.Info("batch stops", "as", as, "in_flight", len(u.flying))
	u.stopped, u.patience = as, time.Now().Add(u.d.p.StopWait)
}

// cancelFlying stops what runs, beside everything else.
func (u *runner) cancelFlying() {
	ids := make([]task.ID, 0, len(u.flying))
	for _, f := range u.flying {
		ids = append(ids, f.id)
	}
	ctx := u.waiting
	u.waiters.Go(func() {
		var g errgroup.Group
		g.SetLimit(cancels)
		for _, id := range ids {
			g.Go(func() error { u.cancelOne(ctx, id); return nil })
		}
		_ = g.Wait() // none of them fails
	})
}

func (u *runner) cancelOne(ctx context.Context, id task.ID) {
	for ctx.Err() == nil {
		_, err := u.d.p.Cancels.Cancel(ctx, u.t.spec.Tenant, id)
		if err == nil || fault.CodeOf(err) != fault.Unavailable {
			return
		}
		lifecycle.Pause(ctx, leastPause)
	}
}

// abandon gives lines in flight their outcome, although their tasks have none
// yet.
func (u *runner) abandon() error {
	u.leave()
	for place, f := range u.flying {
		u.ground(place)
		if err := u.record(u.unrun(place, f.customID)); err != nil {
			return err
		}
	}
	return nil
}

// fill submits lines as long as there is room for more.
func (u *runner) fill() error {
	for u.ctx.Err() == nil {
		room := min(chunk, u.d.p.Window-len(u.flying))
		if u.stopped == "" && (room <= 0 || u.late() || time.Now().Before(u.resume)) {
			return nil
		}
		requests, err := u.take(room)
		if err != nil {
			return err
		}
		if len(requests) > 0 {
			if err := u.submit(requests); err != nil {
				return err
			}
		} else if u.in == nil && len(u.again) == 0 {
			return nil
		}
	}
	return nil
}

// take returns the next lines to submit. Once the batch is stopped there are
// none, and lines get their outcome at once.
func (u *runner) take(most int) ([]*request, error) {
	if u.stopped != "" {
		return nil, u.skip()
	}
	n := min(most, len(u.again))
	out := append([]*request(nil), u.again[:n]...)
	u.again = u.again[n:]
	for size := 0; len(out) < most && size < chunkBytes && u.in != nil; {
		l, place, err := u.read()
		if err != nil {
			return nil, err
		}
		if u.in == nil {
			break
		}
		r := &request{place: place, customID: l.CustomID}
		if r.submission, r.answer, err = u.d.p.Dialect.Request(u.t.spec.Endpoint, l.Body); err != nil {
			if err := u.refuse(r, err); err != nil { // it was in order when the file was validated: a model is gone
				return nil, err
			}
			continue
		}
		out, size = append(out, r), size+len(l.Body)
	}
	return out, nil
}

// skip gives a line that was never submitted its outcome.
func (u *runner) skip() error {
	for _, r := range u.again {
		if err := u.record(u.unrun(r.place, r.customID)); err != nil {
			return err
		}
	}
	u.again = nil
	if u.in == nil {
		return nil
	}
	l, place, err := u.read()
	if err != nil || u.in == nil {
		return err
	}
	return u.record(u.unrun(place, l.CustomID))
}

// read returns the next line without an outcome; at the end of the file it lets
// go of it.
func (u *runner) read() (l line, place int, err error) {
	for {
		raw, err := u.in.next()
		switch {
		case errors.Is(err, io.EOF):
			u.in = nil
			return line{}, 0, nil
		case err != nil:
			return line{}, 0, err
		case u.t.done.has(u.in.place):
			continue
		}
		l, _ = parseLine(raw, u.t.spec.Endpoint) // in order since the file was validated
		l.Body = l.Body.Clone()                  // raw is overwritten by the next
		return l, u.in.place, nil
	}
}

// submit hands lines to the door. Those it cannot take now come again.
func (u *runner) submit(requests []*request) error {
	results := u.d.p.Intake.AcceptAll(u.ctx, len(requests), func(i int) (ingest.Submission, error) {
		return u.d.place(requests[i].submission, &u.t.spec, u.t.id, requests[i].place), nil
	})
	for i, r := range requests {
		err := results[i].Err
		switch {
		case err == nil:
			u.fly(&flight{r.place, r.customID, results[i].Receipt.ID, r.answer})
		case passes(err):
			u.pause(err)
			u.again = append(u.again, r)
		case u.late():
			u.again = append(u.again, r) // and so it is past its deadline
		default:
			if err := u.refuse(r, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// passes reports whether the door may take a line later.
func passes(err error) bool {
	if _, bad := errors.AsType[*validate.Error](err); bad {
		return false
	}
	code := fault.CodeOf(err)
	return code == fault.Unavailable || code == fault.Throttled
}

// pause keeps lines back for as long as the door asks.
func (u *runner) pause(err error) {
	wait := leastPause
	if e, ok := errors.AsType[*fault.Error](err); ok {
		wait = max(wait, e.RetryAfter)
	}
	if until := time.Now().Add(wait); until.After(u.resume) {
		u.resume = until
		u.d.metrics.pauses.Inc()
	}
}

// fly waits for the end of a task.
func (u *runner) fly(f *flight) {
	u.flying[f.place] = f
	u.d.metrics.inFlight.Inc()
	ctx := u.waiting
	u.waiters.Go(func() {
		a, ok := u.d.wait(ctx, f)
		if !ok {
			return
		}
		select {
		case u.arrived <- a:
		case <-ctx.Done():
			a.release()
		}
	})
}

// wait returns how a task ended, with its output; false if ctx ended first.
func (d *Desk) wait(ctx context.Context, f *flight) (arrival, bool) {
	for ctx.Err() == nil {
		t, generation, err := d.p.Waiter.Wait(ctx, f.id)
		if errors.Is(err, follow.ErrExpired) {
			return arrival{flight: f, lost: true, release: func() {}}, true
		}
		if err == nil {
			view, release, err := d.p.Results.Task(ctx, api.OfTerminal(t, generation))
			if err == nil {
				return arrival{flight: f, view: view, release: release}, true
			}
		}
		lifecycle.Pause(ctx, lookAgain)
	}
	return arrival{}, false
}

// land takes an arrival's outcome.
func (u *runner) land(a arrival) error {
	defer a.release()
	if _, flies := u.flying[a.place]; !flies {
		return nil
	}
	u.ground(a.place)
	return u.record(u.outcome(a))
}

// ground ends a flight.
func (u *runner) ground(place int) {
	delete(u.flying, place)
	u.d.metrics.inFlight.Dec()
}

func (u *runner) outcome(a arrival) outcome {
	o := outcome{place: a.place, customID: a.customID, id: a.id}
	switch {
	case a.lost:
		o.count, o.fault = Counts{Failed: 1}, lineFault{"result_expired", "the task ended, and its result was dropped before the batch could read it"}
	case a.view.Status == task.Expired:
		return u.stoppedAs(Expired, o)
	case a.view.Status == task.Cancelled && u.stopped == Cancelled:
		return u.stoppedAs(Cancelled, o)
	default:
		answer := a.answer(a.view)
		o.answer, o.count = &answer, Counts{Failed: 1}
		if answer.Status < 300 {
			o.count = Counts{Completed: 1}
		}
	}
	return o
}

// unrun is the outcome of a line that the end of the batch found without one.
func (u *runner) unrun(place int, customID string) outcome {
	return u.stoppedAs(u.stopped, outcome{place: place, customID: customID})
}

func (u *runner) stoppedAs(s Status, o outcome) outcome {
	if s == Cancelled {
		o.count, o.fault = Counts{Cancelled: 1}, lineFault{"batch_cancelled", "the batch was cancelled before this request ended"}
	} else {
		o.count, o.fault = Counts{Expired: 1}, lineFault{"batch_expired", "this request could not be run before the completion window ended"}
	}
	return o
}

func (u *runner) refuse(r *request, err error) error {
	answer := u.d.p.Dialect.Refusal(u.t.spec.Endpoint, err)
	return u.record(outcome{place: r.place, customID: r.customID, answer: &answer, count: Counts{Failed: 1}})
}
