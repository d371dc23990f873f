package dispatch

import (
	"errors"
	"time"

	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/worker/attempt"
)

// ran takes the result of a try and does what follows from it.
func (l *Loop) ran(e *entry, t *attempt.Try, r attempt.Result) {
	e.now = nil
	l.readmit(e)
	l.remember(e, r)
	switch {
	case r.Moot, e.old:
		l.settle(e, "moot")
		return
	case r.Held:
		l.await(e)
		return
	case r.Barred:
		l.suspected(e)
		return
	}
	e.heldFrom = time.Time{}
	if r.Uncollected {
		e.try-- // its fence is as good as new
	}
	v := l.p.Runner.Judge(t, r)
	if r.Err != nil {
		e.failedOn = r.Backend
		if r.Suspect {
			e.failures++
		}
	}
	if v.Counts {
		e.progress = attempt.Remember(e.progress, t, r, l.p.Worker)
		e.unsaved = true
		e.faults = 0
	}
	l.probed(e, v)
	switch v.Next {
	case attempt.Succeed:
		l.survived()
		end := attempt.TerminalOf(e.task, e.progress, task.Succeeded, nil, l.p.Publisher.BrokerNow())
		l.write(e, outbox{terminal: attempt.Produced(end, t.Fence, r)})
	case attempt.Fail:
		l.survived()
		l.finish(e, task.Failed, r.Err)
	case attempt.Cancel:
		l.finish(e, task.Cancelled, r.Err)
	case attempt.Expire:
		l.rest(e)
		l.expire(e)
	case attempt.Bury:
		l.die(e, r.Err)
	case attempt.Retry:
		l.retry(e, v.Backoff)
	case attempt.Requeue:
		l.requeue(e, v)
	}
}

// blame undoes the router's lenience with a task that tried a failing backend,
// when the backend's own health checks pass: then it answers others, and it is
// the task. Without this a queue of nothing but poison would keep a breaker open
// for ever and never be buried.
func (l *Loop) blame(r attempt.Result) error {
	e, ok := errors.AsType[*fault.Error](r.Err)
	answered := ok && (e.Status >= 500 || e.Code != fault.Unavailable)
	if !answered || e.Class != fault.ClassSystem || fault.RuleOf(e.Code).Class != fault.ClassTask || !l.p.HealthyFunc(r.Backend) {
		return r.Err
	}
	blamed := *e
	blamed.Class = ""
	return &blamed
}

// rest takes an entry back from running.
func (l *Loop) rest(e *entry) {
	l.busy--
	e.state = waiting
}

// retry lets a counted failure wait: shortly in memory, longer in a tier.
// Tasks with an ordering key always wait in memory, for a tier would let the
// next of the key overtake them.
func (l *Loop) retry(e *entry, hint time.Duration) {
	wait := l.p.BackoffFunc(e.progress.Attempts, hint)
	if e.task.OrderingKey == "" && (wait > l.p.MemoryWait || l.draining) {
		l.publishAgain(e, l.lane(e), wait)
		return
	}
	l.rest(e)
	if l.draining {
		l.giveBack(e)
		return
	}
	e.retried = true
	l.m.retries.WithLabelValues("memory").Inc()
	l.comeBack(e, wait)
}

// requeue lets a task wait for its pool, free of charge. Backends pause
// themselves; the wait here only keeps a task from spinning until they do.
func (l *Loop) requeue(e *entry, v attempt.Verdict) {
	l.rest(e)
	if v.Code == fault.Interrupted || l.draining || e.revoked() {
		l.giveBack(e)
		return
	}
	e.faults++
	l.m.retries.WithLabelValues("free").Inc()
	l.comeBack(e, min(l.p.BackoffFunc(e.faults, 0), l.p.MemoryWait))
}

// comeBack returns an entry to the scheduler after a wait in memory.
func (l *Loop) comeBack(e *entry, wait time.Duration) {
	l.watchDeadline(e)
	l.sleep(e, wait, func() { l.push(e, l.queue.Return) })
}

// watchDeadline ends an entry that waits when its deadline passes.
func (l *Loop) watchDeadline(e *entry) {
	left := e.task.Deadline.Sub(l.p.Publisher.BrokerNow())
	e.expiry = l.alarms.set(time.Now().Add(left), func() { l.deadlinePassed(e) })
}

// publishAgain writes the record anew, to wait in a retry tier or at once in its
// lane, and settles this copy.
func (l *Loop) publishAgain(e *entry, lane string, wait time.Duration) {
	p := e.progress
	if p.Hop >= event.MaxHop-1 {
		l.buryEntry(e, fault.New(fault.Internal, "the task was handed on too often"))
		return
	}
	p.Hop++
	p.ReturnTopic, p.NotBefore = "", time.Time{}
	again := republish{to: lane}
	if tier, ok := tierFor(wait, p.Hop); ok {
		p.ReturnTopic = lane
		again = republish{to: tier.Topic(), tier: true}
	}
	if wait > 0 {
		p.NotBefore = l.p.Publisher.BrokerNow().Add(wait)
	}
	again.progress = p
	l.write(e, outbox{again: &again})
}

// fewHopsLeft is the hop from which only the slowest tier is used, so that
// those that are left last for weeks.
const fewHopsLeft = 4000

func tierFor(wait time.Duration, hop uint16) (topic.Tier, bool) {
	if hop >= fewHopsLeft {
		tiers := topic.Tiers()
		return tiers[len(tiers)-1], true
	}
	return topic.TierFor(wait)
}

// parkBlocked moves heads that hold up a whole partition to a retry tier: those
// that wait and have no order to keep.
func (l *Loop) parkBlocked() {
	for _, d := range l.p.BlockedFunc() {
		for _, e := range l.entries {
			if e.first == d && e.task.OrderingKey == "" && (e.state == waiting || e.state == queued) && !e.expired(l.p.Publisher.BrokerNow()) {
				l.m.parked.Inc()
				l.take(e)
				l.publishAgain(e, l.lane(e), topic.Tiers()[0].Delay)
			}
		}
	}
}
