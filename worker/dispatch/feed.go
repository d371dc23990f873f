package dispatch

import (
	"time"

	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/worker/attempt"
)

// feed moves tasks from the scheduler into batches while backends have room.
// What finds no room stays in the scheduler, where a more urgent task can still
// overtake it.
func (l *Loop) feed(now time.Time) {
	for _, model := range l.queue.Models() {
		for l.room(model) {
			it, ok := l.queue.Pop(model)
			if !ok {
				break
			}
			l.form(now, it.Value)
		}
	}
}

// room reports whether another task of a model may leave the scheduler: the
// batches that are made or in the making must find a place soon.
func (l *Loop) room(model string) bool {
	free := l.p.Engines.Free(model)
	return free > 0 && len(l.ready[model])+l.p.Former.Open(model) <= free
}

// form puts a popped entry into a batch, unless it has ended meanwhile.
func (l *Loop) form(now time.Time, e *entry) {
	e.inQueue = false
	e.holds = e.task.OrderingKey != ""
	switch {
	case e.state != queued:
		if e.holds { // a leftover: pass its key on
			e.holds = false
			l.queue.Done(e.item())
		}
	case e.revoked():
		l.giveBack(e)
	case e.try > event.MaxTry:
		l.republishHere(e)
	case !l.affordable(now, e):
		l.m.retries.WithLabelValues("budget").Inc()
		l.alarms.stop(e.expiry)
		l.comeBack(e, budgetPause)
	default:
		e.state = forming
		key, most := l.p.Engines.Join(e.task)
		m := &Member{Task: e.task, e: e}
		if most <= 1 {
			l.close([]*Member{m})
			return
		}
		l.closeAll(l.p.Former.Add(now, key, most, m))
	}
}

// budgetPause is how long a retry waits when the pool has had its share of them.
const budgetPause = 500 * time.Millisecond

// affordable keeps retries a small part of the pool's calls, so that backends in
// trouble are not buried under their own failures.
func (l *Loop) affordable(now time.Time, e *entry) bool {
	if !e.retried {
		l.budget.Call(now)
		return true
	}
	if !l.budget.Retry(now) {
		return false
	}
	e.retried = false
	return true
}

func (l *Loop) closeDue(now time.Time) { l.closeAll(l.p.Former.Due(now)) }

func (l *Loop) closeAll(batches [][]*Member) {
	for _, b := range batches {
		l.close(b)
	}
}

func (l *Loop) close(b []*Member) {
	if len(b) > 0 {
		l.ready[b[0].Task.Model] = append(l.ready[b[0].Task.Model], b)
	}
}

// launch starts closed batches on backends, as far as there is room.
func (l *Loop) launch() {
	for model, batches := range l.ready {
		for len(batches) > 0 {
			entries := live(batches[0])
			if len(entries) == 0 {
				batches = batches[1:]
				continue
			}
			call, release, ok := l.p.Engines.Acquire(model)
			if !ok {
				break
			}
			batches = batches[1:]
			l.start(call, release, entries)
		}
		if l.ready[model] = batches; len(batches) == 0 {
			delete(l.ready, model)
		}
	}
}

// live returns the entries of a batch that have not ended meanwhile.
func live(b []*Member) []*entry {
	out := make([]*entry, 0, len(b))
	for _, m := range b {
		if m.e.state == forming {
			out = append(out, m.e)
		}
	}
	return out
}

// start runs a batch in a goroutine of its own; the results come back by the
// inbox.
func (l *Loop) start(call attempt.Call, release func(), entries []*entry) {
	tries := make([]*attempt.Try, 0, len(entries))
	started := entries[:0]
	for _, e := range entries {
		fence, err := e.fence()
		if err != nil { // a field is full
			l.fenceFull(e, err)
			continue
		}
		e.state = running
		l.busy++
		l.alarms.stop(e.expiry)
		e.now = &attempt.Try{
			Task: e.task, Progress: e.progress, Fence: fence, N: e.progress.Attempts + 1,
			Again: e.try > 0 || e.progress.Hop > 0,
		}
		e.try++
		tries = append(tries, e.now)
		started = append(started, e)
	}
	if len(tries) == 0 {
		release()
		return
	}
	l.workers.Go(func() {
		results := l.p.Runner.Do(l.work, call, tries)
		release()
		l.post(func() {
			for i, e := range started {
				l.ran(e, tries[i], results[i])
			}
		})
	})
}

// fenceFull ends a task whose fence has no higher value left. It takes 4,094
// hops to get there.
func (l *Loop) fenceFull(e *entry, err error) {
	l.log.Error("fence is full", "task_id", e.task.ID, "err", err)
	cause := fault.New(fault.Internal, "the task was handed on too often")
	l.take(e)
	l.buryEntry(e, cause)
}

// republishHere moves an entry to a new hop in its own lane, because its local
// tries are used up.
func (l *Loop) republishHere(e *entry) {
	l.take(e)
	l.publishAgain(e, l.lane(e), 0)
}

// lane is the tasks topic that an entry belongs to: retries come back to it.
func (l *Loop) lane(e *entry) string {
	if _, _, ok := topic.ParseTasks(e.first.Topic); ok {
		return e.first.Topic
	}
	return topic.Tasks(l.p.Pool, e.task.Class)
}
