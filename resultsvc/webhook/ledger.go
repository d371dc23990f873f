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
	entries map[task.ID]*entry
	// over are the keyed tasks of which nothing more can be told. Such a task may
	// be registered again by a repeat of its submit, and must not be told twice.
	over map[task.ID]struct{}
}

// room is what the ledgers of one process may hold.
type room struct {
	entries, maxEntries int
	deliveries, bytes   int    // of deliveries that are not settled
	refuse              func() // called for each registration there is no room for
}

// entry is the webhook of one task.
type entry struct {
	id         task.ID
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
	return &ledger{next: next, room: r, entries: map[task.ID]*entry{}, over: map[task.ID]struct{}{}}
}

// fold takes in the record at an offset. It returns the entry that it changed,
// if any, and the delivery that must be tried, if one began or failed.
func (l *ledger) fold(r *webhook.Record, offset int64) (changed *entry, try *delivery) {
	l.next = offset + 1
	if r.Step == webhook.Registered {
		return nil, l.register(r)
	}
	e := l.entries[r.TaskID]
	if e == nil {
		return nil, nil
	}
	e.offset = offset
	switch r.Step {
	case webhook.Ended:
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

// register notes who wants to hear of a task. Beyond the process's room it
// cannot: such a task ends untold unless its partition moves to where there is
// some.
func (l *ledger) register(r *webhook.Record) *delivery {
	_, over := l.over[r.TaskID]
	if l.entries[r.TaskID] != nil || over {
		return nil
	}
	if l.room.entries >= l.room.maxEntries {
		l.room.refuse()
		return nil
	}
	l.room.entries++
	l.entries[r.TaskID] = &entry{id: r.TaskID, tenant: r.Tenant, hook: r.Webhook, ended: -1}
	return nil
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
		entry: e, generation: r.Generation, kind: webhook.TypeOf(&terminal.Terminal{Status: r.Status}), host: hostOf(e.hook.URL),
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

// forgetSettled drops an entry of which nothing more can be told: every end
// but that of a dead task, which may be redriven, is for good.
func (l *ledger) forgetSettled(e *entry) {
	if e.state.Open() || e.state.Status == task.Dead || e.ended < int(e.state.Generation) || e.pending() {
		return
	}
	l.forget(e)
	if e.id.Keyed() {
		l.room.entries++
		l.over[e.id] = struct{}{}
	}
}

func (l *ledger) forget(e *entry) {
	delete(l.entries, e.id)
	l.room.entries--
}

// expire drops what nothing can be told of any more because its task's results
// do not count any longer.
func (l *ledger) expire(gone func(task.ID) bool) {
	for id, e := range l.entries {
		if !e.pending() && gone(id) {
			l.forget(e)
		}
	}
	for id := range l.over {
		if gone(id) {
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
	e := l.entries[t.TaskID]
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

// log is what the task's owner is told.
func (e *entry) log() taskstore.WebhookLog {
	out := taskstore.WebhookLog{Offset: e.offset, Log: webhook.Log{TaskID: e.id, Deliveries: make([]webhook.Delivery, len(e.deliveries))}}
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
