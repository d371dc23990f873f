package dispatch

import (
	"context"
	"slices"
	"time"

	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/wire"
	"github.com/penstock/penstock/worker/attempt"
	"github.com/penstock/penstock/worker/consume"
	"github.com/penstock/penstock/worker/schedule"
)

// admit takes a delivery in: it joins the task in flight, or becomes one.
func (l *Loop) admit(d *consume.Delivery) {
	if l.draining {
		d.Release()
		return
	}
	t, p, err := wire.DecodeTask(d.Record)
	if err != nil {
		l.buryUndecodable(d, err)
		return
	}
	id := identity{t.ID, p.Generation}
	if e, ok := l.entries[id]; ok {
		if e.handedOn(p) {
			e.next = append(e.next, d)
			return
		}
		e.join(d, p)
		l.m.joined.Inc()
		return
	}
	if l.outdated(id) {
		d.Settle()
		l.m.settled.WithLabelValues("moot").Inc()
		return
	}
	l.supersede(id)
	e := &entry{task: t, progress: p, rec: d.Record, first: d, deliveries: []*consume.Delivery{d}, retried: p.Attempts > 0}
	l.entries[id] = e
	l.byID[t.ID] = append(l.byID[t.ID], e)
	l.enter(e)
}

// enter queues a new entry, now or when its wait is over.
func (l *Loop) enter(e *entry) {
	now := l.p.Publisher.BrokerNow()
	if e.expired(now) {
		l.expire(e)
		return
	}
	e.expiry = l.alarms.set(time.Now().Add(e.task.Deadline.Sub(now)), func() { l.deadlinePassed(e) })
	if wait := e.progress.NotBefore.Sub(now); wait > 0 && e.task.OrderingKey == "" {
		l.sleep(e, wait, func() { l.push(e, l.queue.Push) })
		return
	}
	l.push(e, l.queue.Push)
}

// push hands an entry to the scheduler, by Push the first time and by Return,
// which keeps its ordering key, after that.
func (l *Loop) push(e *entry, how func(schedule.Item[*entry])) {
	e.state, e.inQueue, e.holds = queued, true, false
	how(e.item())
}

// sleep lets an entry wait in memory before it goes on.
func (l *Loop) sleep(e *entry, wait time.Duration, then func()) {
	e.state = waiting
	e.wake = l.alarms.set(time.Now().Add(wait), func() {
		e.wake = nil
		then()
	})
}

// deadlinePassed ends an entry that has not started. One that runs is ended by
// its own context.
func (l *Loop) deadlinePassed(e *entry) {
	e.expiry = nil
	if e.state != gone && !e.started() {
		l.expire(e)
	}
}

// expire writes the terminal a while after the deadline by the brokers' clock,
// so that no worker with a fast clock ends a task early.
func (l *Loop) expire(e *entry) {
	l.take(e)
	due := e.task.Deadline.Add(l.p.ExpiryGrace).Sub(l.p.Publisher.BrokerNow())
	err := fault.New(fault.Expired, "the task's deadline passed before it could finish")
	l.sleep(e, max(0, due), func() { l.finish(e, task.Expired, err) })
}

// cancel stops a task wherever it is.
func (l *Loop) cancel(id task.ID) {
	for _, e := range slices.Clone(l.byID[id]) {
		switch {
		case e.state == running:
			e.now.Cancel(attempt.ErrCallerCancelled)
		case e.state != publishing && e.state != gone:
			l.take(e)
			l.finish(e, task.Cancelled, attempt.ErrCallerCancelled)
		}
	}
}

// take makes an entry that has not started safe to end: its alarms are off. If
// it is in the scheduler or in a forming batch it is passed over there, because
// its state is no longer the one that it was put there with.
func (l *Loop) take(e *entry) {
	l.alarms.stop(e.wake)
	l.alarms.stop(e.expiry)
	e.wake, e.expiry = nil, nil
}

// forget ends an entry's time in flight. Its ordering key goes to the next,
// unless it lies in the scheduler still: then that happens when it is popped.
func (l *Loop) forget(e *entry) {
	l.take(e)
	if e.started() {
		l.busy--
	}
	e.state = gone
	delete(l.entries, e.identity())
	same := slices.DeleteFunc(l.byID[e.task.ID], func(o *entry) bool { return o == e })
	if l.byID[e.task.ID] = same; len(same) == 0 {
		delete(l.byID, e.task.ID)
	}
	if e.holds {
		e.holds = false
		l.queue.Done(e.item())
	}
	for _, d := range e.next {
		l.admit(d)
	}
}

// dropRevoked gives back what has not started of partitions that were taken
// away. What runs goes on: its terminal competes.
func (l *Loop) dropRevoked() {
	for _, e := range l.entries {
		if !e.started() && e.revoked() {
			l.giveBack(e)
		}
	}
}

// giveBack drops an entry unsettled.
func (l *Loop) giveBack(e *entry) {
	l.forget(e)
	for _, d := range e.deliveries {
		d.Release()
	}
	l.m.settled.WithLabelValues("given_back").Inc()
}

// buryUndecodable dead-letters a record that is no task, and ends the task it
// claims to be if it says enough about itself.
func (l *Loop) buryUndecodable(d *consume.Delivery, err error) {
	l.log.Warn("undecodable record", "topic", d.Topic, "partition", d.Partition, "offset", d.Offset, "err", err)
	letter, end := attempt.Undecodable(d.Record, l.p.Publisher.BrokerNow())
	letter.Origin, letter.Build = l.origin(d), l.p.Build
	l.busy++
	l.bury(d.Record, letter, func() {
		l.m.deadLetters.WithLabelValues(string(deadletter.Undecodable)).Inc()
		if end == nil {
			l.busy--
			d.Settle()
			return
		}
		l.endUndecodable(d, end, 0)
	})
}

func (l *Loop) endUndecodable(d *consume.Delivery, end *terminal.Terminal, failures int) {
	l.writeTerminal(end, func(err error) {
		if err != nil {
			l.again(failures, func() { l.endUndecodable(d, end, failures+1) })
			return
		}
		l.busy--
		d.Settle()
	})
}

// bury writes a dead letter, for as long as it takes; then goes on in the loop.
func (l *Loop) bury(rec wire.Record, letter deadletter.Letter, then func()) {
	l.tryBury(rec, letter, 0, then)
}

func (l *Loop) tryBury(rec wire.Record, letter deadletter.Letter, failures int, then func()) {
	l.workers.Go(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(l.work), time.Minute)
		defer cancel()
		_, err := l.p.Publisher.DeadLetter(ctx, rec, letter)
		l.post(func() {
			switch {
			case err == nil:
				then()
			case tooLarge(err):
				l.log.Error("dead letter is too large for its topic: only the terminal tells of it", "task_id", letter.TaskID, "err", err)
				then()
			default:
				l.again(failures, func() { l.tryBury(rec, letter, failures+1, then) })
			}
		})
	})
}

func (l *Loop) origin(d *consume.Delivery) deadletter.Origin {
	return deadletter.Origin{Topic: d.Topic, Partition: d.Partition, Offset: d.Offset, Timestamp: d.Timestamp, Group: l.p.Group}
}
