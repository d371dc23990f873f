package dispatch

import (
	"slices"
	"time"

	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/worker/attempt"
	"github.com/penstock/penstock/worker/batch"
	"github.com/penstock/penstock/worker/route"
)

// feed moves tasks from the scheduler into batches and batches onto backends,
// while there is room. What finds no room stays in the scheduler, where a more
// urgent task can still overtake it.
func (l *Loop) feed(now time.Time) {
	for moved := true; moved; {
		moved = false
		if l.flood.paused() {
			l.feedProbe(now)
		}
		for _, model := range l.queue.Models() {
			for !l.flood.paused() && l.room(model) {
				it, ok := l.queue.Pop(model)
				if !ok {
					break
				}
				l.form(now, it.Value)
				moved = true
			}
		}
		for {
			b, ok := l.batcher.Next(now, l.p.Router.Free)
			if !ok {
				break
			}
			l.launch(b)
			moved = true
		}
	}
}

// batchesAhead is how many batches of a model may wait outside the scheduler.
const batchesAhead = 2

// room reports whether another task of a model may leave the scheduler: it must
// find a place on a backend soon.
func (l *Loop) room(model string) bool {
	wide := max(1, l.widest[model])
	limit := l.p.Router.Free(model) * wide
	if wide > 1 {
		limit = min(limit, batchesAhead*wide)
	}
	return l.batcher.Waiting(model) < limit
}

// form gives a popped entry to the batcher, unless it has ended meanwhile.
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
	case l.otherRuns(e):
		l.alarms.stop(e.expiry)
		l.comeBack(e, generationPause)
	case e.progress.Losses >= attempt.MaxLosses:
		l.buryEntry(e, errKiller())
	case e.try > event.MaxTry:
		l.republishHere(e)
	case !l.affordable(now, e):
		l.m.retries.WithLabelValues("budget").Inc()
		l.alarms.stop(e.expiry)
		l.comeBack(e, budgetPause)
	default:
		e.state = forming
		key, most := l.p.Router.Join(e.task)
		l.widest[e.task.Model] = most
		most = e.share(most)
		if e.suspect() || e.task.Payload.Ref != nil || e.task.Memory { // nobody waits for another's payload or memory
			most = 1
		}
		l.batcher.Add(batch.Item[*entry]{
			Value: e, Group: e.task.Model, Key: key, Max: most, Tokens: costOf(e), Deadline: e.task.Deadline,
		}, now)
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

// launch starts a batch on a backend. Those of it that have ended meanwhile are
// left out.
func (l *Loop) launch(b batch.Batch[*entry]) {
	entries := slices.DeleteFunc(b.Items, func(e *entry) bool { return e.state != forming })
	if len(entries) == 0 {
		l.batcher.Done(b, time.Now(), false)
		return
	}
	lease, ok := l.p.Router.TryAcquire(b.Group, avoid(entries)...)
	if !ok { // the room that was there has just gone
		l.batcher.Done(b, time.Now(), false)
		for _, e := range entries {
			l.push(e, l.queue.Return)
		}
		return
	}
	if lease.Probing() && len(entries) > 1 {
		// One task is enough to see whether the backend is well again, and it
		// must not be the same poison for ever that says it is not.
		for _, e := range entries[1:] {
			l.push(e, l.queue.Return)
		}
		entries = entries[:1]
	}
	l.batches.Cut(len(entries), b.Reason, b.Waited)
	l.start(b, lease, entries)
}

// avoid is the backend that failed a task last, if it runs alone now: another
// one may do better.
func avoid(entries []*entry) []string {
	if len(entries) == 1 && entries[0].failedOn != "" {
		return []string{entries[0].failedOn}
	}
	return nil
}

// start runs a batch in a goroutine of its own; the results come back by the
// inbox.
func (l *Loop) start(b batch.Batch[*entry], lease *route.Lease, entries []*entry) {
	tries := make([]*attempt.Try, 0, len(entries))
	started := entries[:0]
	for _, e := range entries {
		fence, err := e.fence()
		if err != nil { // a field is full
			l.fenceFull(e, err)
			continue
		}
		if !l.seclude(e) {
			continue
		}
		e.state = running
		l.busy++
		l.alarms.stop(e.expiry)
		e.now = &attempt.Try{
			Task: e.task, Progress: e.progress, Fence: fence, Lane: l.lane(e), N: e.progress.Attempts + 1,
			Again: e.try > 0 || e.progress.Hop > 0, Insist: l.insists(e), Owned: e.first.ProveOwned,
		}
		e.try++
		tries = append(tries, e.now)
		started = append(started, e)
	}
	if len(tries) == 0 {
		l.batcher.Done(b, time.Now(), false)
		lease.Release()
		return
	}
	l.workers.Go(func() {
		defer lease.Release()
		call := attempt.Call{Backend: lease, Name: lease.Name(), Open: lease.Open}
		results := l.p.Runner.Do(l.work, call, tries)
		ended := time.Now()
		l.post(func() {
			l.batcher.Done(b, ended, len(results) == len(b.Items) && clean(results))
			for i, e := range started {
				if lease.Probing() && len(results) == 1 {
					results[i].Err = l.blame(results[i])
				}
				l.ran(e, tries[i], results[i])
			}
		})
	})
}

// clean reports whether the time of a call says something of the engine.
func clean(results []attempt.Result) bool {
	return !slices.ContainsFunc(results, func(r attempt.Result) bool {
		return r.Err != nil || r.Moot || r.Held || r.Barred
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
