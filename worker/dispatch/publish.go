package dispatch

import (
	"errors"
	"time"

	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/worker/attempt"
)

// finish ends a task with a terminal that carries no output.
func (l *Loop) finish(e *entry, status task.Status, err error) {
	l.write(e, outbox{terminal: attempt.TerminalOf(e.task, e.progress, status, err, l.p.Publisher.BrokerNow())})
}

// buryEntry gives a task up: the dead letter first, then its terminal.
func (l *Loop) buryEntry(e *entry, err error) {
	now := l.p.Publisher.BrokerNow()
	letter := attempt.Letter(e.task, e.progress, e.rec, err, now)
	letter.Origin, letter.Build = l.origin(e.first), l.p.Build
	l.write(e, outbox{
		letter:   &letter,
		terminal: attempt.TerminalOf(e.task, e.progress, task.Dead, err, now),
	})
}

// write begins to publish an entry's outcome.
func (l *Loop) write(e *entry, o outbox) {
	if !e.started() {
		l.busy++
	}
	l.take(e)
	e.state, e.out = publishing, o
	l.send(e)
}

// send writes the first thing in the outbox. Each acknowledgement comes back
// here, until the outbox is empty and the entry settles.
func (l *Loop) send(e *entry) {
	switch o := &e.out; {
	case o.letter != nil:
		letter := *o.letter
		l.bury(e.rec, letter, func() {
			l.m.deadLetters.WithLabelValues(string(letter.Disposition)).Inc()
			o.letter = nil
			l.send(e)
		})
	case o.terminal != nil && l.p.Results.Wants(o.terminal.Output):
		l.deposit(e)
	case o.terminal != nil:
		l.writeTerminal(o.terminal, func(err error) { l.sent(e, err) })
	case o.again != nil:
		l.p.Publisher.RepublishAsync(e.rec, e.task, o.again.to, o.again.progress, func(_ tasktopic.Ack, err error) {
			l.post(func() { l.sent(e, err) })
		})
	default:
		l.settle(e, "published")
	}
}

func (l *Loop) writeTerminal(t *terminal.Terminal, done func(error)) {
	l.p.Publisher.TerminalAsync(t, func(_ tasktopic.Ack, err error) { l.post(func() { done(err) }) })
}

// sent takes the answer to a terminal or a republication. What could not be
// written is written again, for as long as it takes: it is never settled before.
func (l *Loop) sent(e *entry, err error) {
	switch {
	case err == nil:
		if e.out.again != nil && e.out.again.tier {
			l.m.retries.WithLabelValues("tier").Inc()
		}
		e.out.terminal, e.out.again = nil, nil
		l.send(e)
	case tooLarge(err):
		l.shrink(e)
	default:
		l.again(e.out.failures, func() { l.send(e) })
		e.out.failures++
	}
}

// shrink replaces what the topic will never take. A result becomes a failure
// that says so; a record whose headers outgrew it becomes a dead letter.
func (l *Loop) shrink(e *entry) {
	switch {
	case e.out.again != nil:
		e.out.again = nil
		l.buryEntry(e, fault.New(fault.Internal, "the record with its history is larger than the topic takes"))
	case e.out.terminal.Output != nil:
		l.finish(e, task.Failed, fault.New(fault.TooLarge, "the result is larger than a record may be; a blob store (blob_url) takes larger ones"))
	default: // nothing but labels and history: those are for people
		e.out.terminal.Labels, e.out.terminal.Attempts = nil, nil
		l.send(e)
	}
}

// settle lets the offsets of all the entry's deliveries be committed.
func (l *Loop) settle(e *entry, how string) {
	l.forget(e)
	for _, d := range e.deliveries {
		d.Settle()
	}
	l.m.settled.WithLabelValues(how).Add(float64(len(e.deliveries)))
}

// again repeats a write after a pause that grows to some seconds.
func (l *Loop) again(failures int, write func()) {
	l.m.publishRetries.Inc()
	if failures == 0 || failures%10 == 9 {
		l.log.Warn("an outcome could not be written: it is kept and tried again", "failures", failures+1)
	}
	l.alarms.set(time.Now().Add(min(100*time.Millisecond<<min(failures, 6), 5*time.Second)), write)
}

func tooLarge(err error) bool { return errors.Is(err, tasktopic.ErrTooLarge) }
