package webhook

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/webhook"
)

// ledger folds one partition of penstock.webhooks. Whoever folds the same
// records has the same ledger, so an owner that takes over goes on where the
// one before it stood.
//
// It is not safe for concurrent use: the courier's lock guards it.
type ledger struct {
	next    int64 // offset after the last record
	room    *room // shared with the process's other ledgers
	entries map[string]*entry
	// over are those of which nothing more can be told although they may be
	// registered or announced again, and when they ended: a keyed task by a repeat
	// of its submit, a batch by whoever took it over. They must not be told twice.
	over map[string]time.Time
}

// room is what the ledgers of one process may hold.
type room struct {
	entries, maxEntries int
	deliveries, bytes   int    // of deliveries that are not settled
	refuse              func() // called for each registration there is no room for
}

// entry is the webhook of one task or batch.
type entry struct {
	id         string
	batch      bool
	tenant     string
	hook       *task.Webhook
	state      terminal.State // as the results tell it, up to those that were matched
	ended      int            // the latest generation whose end was folded; -1: none
	disabled   bool           // the receiver wants no more of this
	deliveries []*delivery    // of the latest generations, oldest first
	offset     int64          // of the last record of it that was folded
}

// delivery is one event on its way.
type delivery struct {
	entry      *entry
	generation uint8
	kind       string // type of the event
	host       string
	body       []byte // nil once it is settled
	endedAt    time.Time
	attempts   []webhook.Attempt
	due        time.Time // when it is tried next; zero: at once
	state      webhook.State
	settledAt  time.Time

	// Of the courier that makes the attempts, and no part of the fold.
	queued bool // waits for its time, its host, or the outcome to be folded
	gone   bool // its partition is not ours any more
}

func newLedger(next int64, r *room) *ledger {
	return &ledger{next: next, room: r, entries: map[string]*entry{}, over: map[string]time.Time{}}
}

// fold takes in the record at an offset. It returns the entry that it changed,
// if any, and the delivery that must be tried, if one began or failed.
func (l *ledger) fold(r *webhook.Record, offset int64) (changed *entry, try *delivery) {
	l.next = offset + 1
	if r.Step == webhook.Registered || r.Step == webhook.Announced {
		l.register(r)
	}
	e := l.entries[r.Subject()]
	if e == nil || r.Step == webhook.Registered {
		return nil, nil
	}
	e.offset = offset
	switch r.Step {
	case webhook.Announced, webhook.Ended:
		try = l.end(e, r)
	case webhook.Reopened:
		e.learn(r.Fold())
	case webhook.Attempted:
		try = e.attempted(r)
	case webhook.Settled:
		l.settle(e, r)
	}
	l.forgetSettled(e)
	return e, try
}

// register notes who wants to hear of a task or a batch. Beyond the process's
// room it cannot: such a one ends untold unless its partition moves to where
// there is some.
func (l *ledger) register(r *webhook.Record) {
	id := r.Subject()
	_, over := l.over[id]
	if l.entries[id] != nil || over {
		return
	}
	if l.room.entries >= l.room.maxEntries {
		l.room.refuse()
		return
	}
	l.room.entries++
	l.entries[id] = &entry{id: id, batch: r.BatchID != "", tenant: r.Tenant, hook: r.Webhook, ended: -1}
}

// end begins the delivery of how a generation ended. Only the first record of a
// generation counts: two owners may have written one each.
func (l *ledger) end(e *entry, r *webhook.Record) *delivery {
	if int(r.Generation) <= e.ended {
		return nil
	}
	e.ended = int(r.Generation)
	e.learn(r.Fold())
	if len(r.Event) == 0 || e.disabled {
		return nil
	}
	d := &delivery{
		entry: e, generation: r.Generation, kind: r.Kind(), host: hostOf(e.hook.URL),
		body: r.Event, endedAt: r.At, state: webhook.Pending,
	}
	e.deliveries = append(e.deliveries, d)
	if settled := slices.IndexFunc(e.deliveries, (*delivery).settled); len(e.deliveries) > webhook.MaxGenerations && settled >= 0 {
		e.deliveries = slices.Delete(e.deliveries, settled, settled+1)
	}
	l.room.deliveries++
	l.room.bytes += len(d.body)
	return d
}

// learn takes what a record says of the results, unless more is known.
func (e *entry) learn(s terminal.State) {
	if e.state == (terminal.State{}) || s.Offset > e.state.Offset {
		e.state = s
	}
}

// record begins a record about an entry.
func (e *entry) record(step webhook.Step, generation uint8, at time.Time) *webhook.Record {
	r := &webhook.Record{SchemaVersion: task.SchemaVersion, Step: step, Tenant: e.tenant, Generation: generation, At: at}
	if e.batch {
		r.BatchID = e.id
	} else {
		r.TaskID = task.ID(e.id)
	}
	return r
}

func (e *entry) delivery(generation uint8) *delivery {
	for _, d := range e.deliveries {
		if d.generation == generation {
			return d
		}
	}
	return nil
}

// attempted notes an attempt that failed. Of two owners' attempts with one
// number the first counts.
func (e *entry) attempted(r *webhook.Record) *delivery {
	d := e.delivery(r.Generation)
	if d == nil || d.settled() || r.Attempt.N != len(d.attempts)+1 {
		return nil
	}
	d.attempts = append(d.attempts, *r.Attempt)
	d.due = r.Attempt.Next
	return d
}

func (l *ledger) settle(e *entry, r *webhook.Record) {
	d := e.delivery(r.Generation)
	if d == nil || d.settled() {
		return
	}
	if a := r.Attempt; a != nil && a.N > len(d.attempts) {
		d.attempts = append(d.attempts, *a)
	}
	e.disabled = e.disabled || r.State == webhook.Disabled
	d.state, d.settledAt = r.State, r.At
	l.release(d)
}

// release gives back the room of a delivery that is over.
func (l *ledger) release(d *delivery) {
	l.room.deliveries--
	l.room.bytes -= len(d.body)
	d.body = nil
}

// forgetSettled drops an entry of which nothing more can be told.
func (l *ledger) forgetSettled(e *entry) {
	if e.pending() || !e.over() {
		return
	}
	l.forget(e)
	if e.batch || task.ID(e.id).Keyed() {
		l.room.entries++
		l.over[e.id] = e.endedAt()
	}
}

// over reports whether no other end can follow: every end but that of a dead
// task, which may be redriven, is for good.
func (e *entry) over() bool {
	if e.batch {
		return e.ended >= 0
	}
	return !e.state.Open() && e.state.Status != task.Dead && e.ended >= int(e.state.Generation)
}

// endedAt is when the latest end that is told of was noted.
func (e *entry) endedAt() (at time.Time) {
	for _, d := range e.deliveries {
		at = d.endedAt
	}
	return at
}

func (l *ledger) forget(e *entry) {
	delete(l.entries, e.id)
	l.room.entries--
}

// expire drops what nothing can be told of any more. gone says so of an id, and
// when what bears it ended; the zero time if it did not.
func (l *ledger) expire(gone func(id string, ended time.Time) bool) {
	for id, e := range l.entries {
		if !e.pending() && gone(id, e.endedAt()) {
			l.forget(e)
		}
	}
	for id, ended := range l.over {
		if gone(id, ended) {
			delete(l.over, id)
			l.room.entries--
		}
	}
}

// drop gives back the room of all, because the partition is not ours any more.
func (l *ledger) drop() {
	for _, e := range l.entries {
		for _, d := range e.deliveries {
			d.gone = true
			if !d.settled() {
				l.release(d)
			}
		}
	}
	l.room.entries -= len(l.entries) + len(l.over)
	l.entries, l.over = nil, nil
}

// match folds a record of the results. It reports whether that changes what is
// known of a webhook, and so must be written down.
func (l *ledger) match(t *terminal.Terminal, offset int64) (*entry, bool) {
	e := l.entries[string(t.TaskID)]
	if e == nil {
		return nil, false
	}
	state, won := e.state.Apply(t, offset)
	e.state = state
	return e, won
}

func (d *delivery) settled() bool { return d.state != webhook.Pending }

func (e *entry) pending() bool {
	return slices.ContainsFunc(e.deliveries, func(d *delivery) bool { return !d.settled() })
}

// log is what the owner of the task or batch is told.
func (e *entry) log() taskstore.WebhookLog {
	out := taskstore.WebhookLog{Offset: e.offset, Log: webhook.Log{Deliveries: make([]webhook.Delivery, len(e.deliveries))}}
	if e.batch {
		out.BatchID = e.id
	} else {
		out.TaskID = task.ID(e.id)
	}
	for i, d := range e.deliveries {
		out.Deliveries[i] = d.view()
	}
	return out
}

func (d *delivery) view() webhook.Delivery {
	v := webhook.Delivery{
		ID: webhook.EventID(d.entry.id, d.generation), Type: d.kind, Generation: d.generation, State: d.state,
		Attempts: slices.Clone(d.attempts), EndedAt: d.endedAt,
	}
	if v.Attempts == nil {
		v.Attempts = []webhook.Attempt{}
	}
	switch {
	case d.settled():
		v.SettledAt = new(d.settledAt)
	case !d.due.IsZero():
		v.NextAt = new(d.due)
	}
	return v
}

// hostOf names who is called: attempts at one host are bounded together.
func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Host)
}
