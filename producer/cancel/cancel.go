// Package cancel stops tasks on their caller's behalf.
//
// A cancel is a terminal record that competes with the task's other terminals:
// the first in partition order wins, so the answer is the terminal that won,
// which may be `succeeded`. Cancelling twice, or after the end, changes nothing.
package cancel

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// Publisher writes terminals.
type Publisher interface {
	Terminal(ctx context.Context, t *terminal.Terminal) (tasktopic.Ack, error)
	BrokerNow() time.Time
}

// Store is what Redis knows of tasks, and the way to tell workers; both may
// fail.
type Store interface {
	// Task returns a task as far as it is known.
	Task(ctx context.Context, id task.ID) (view api.Task, known bool, err error)
	// SignalCancel tells the workers that a cancelled terminal is durable.
	SignalCancel(ctx context.Context, id task.ID) error
}

// Waiter waits for the terminal that wins.
type Waiter interface {
	Wait(ctx context.Context, id task.ID) (*terminal.Terminal, uint8, error)
}

// Params are the developer's choices.
type Params struct {
	Wait         time.Duration // for the winner; default 2 s
	StoreTimeout time.Duration // of one question to Redis; default 250 ms

	// Gone says that a task is so old that even its result is dropped.
	Gone func(id task.ID, now time.Time) bool
}

// Desk takes cancels. It is safe for concurrent use.
type Desk struct {
	minter *task.Minter
	pub    Publisher
	store  Store
	waiter Waiter
	p      Params
	log    *slog.Logger
}

// New returns a Desk.
func New(m *task.Minter, pub Publisher, s Store, w Waiter, p Params, log *slog.Logger) *Desk {
	if p.Wait == 0 {
		p.Wait = 2 * time.Second
	}
	if p.StoreTimeout == 0 {
		p.StoreTimeout = 250 * time.Millisecond
	}
	return &Desk{minter: m, pub: pub, store: s, waiter: w, p: p, log: log}
}

// Outcome is the task as it ended, or as it is known while Ended is false.
type Outcome struct {
	Task  api.Task
	Ended bool
}

// Cancel stops a task of a tenant. Ended is false when the cancel is durable
// but its winner is not known within the wait. Errors: NotFound for an id that
// this tenant was never given, Gone for one whose result has long been dropped,
// Unavailable when Kafka did not take the cancel.
func (d *Desk) Cancel(ctx context.Context, tenant string, id task.ID) (Outcome, error) {
	if d.minter.Check(id, tenant) != nil {
		return Outcome{}, fault.New(fault.NotFound, "no such task")
	}
	if d.p.Gone(id, d.pub.BrokerNow()) {
		return Outcome{}, fault.New(fault.Gone, "the task ended long ago and its result is dropped")
	}
	view, known := d.look(ctx, id)
	if known && view.Status.Terminal() {
		return Outcome{Task: view, Ended: true}, nil
	}
	return d.compete(ctx, tenant, id, view)
}

func (d *Desk) look(ctx context.Context, id task.ID) (api.Task, bool) {
	ctx, cancel := context.WithTimeout(ctx, d.p.StoreTimeout)
	defer cancel()
	view, known, err := d.store.Task(ctx, id)
	if err != nil || !known {
		return api.Task{TaskID: id, Status: task.Pending, Attempts: []task.Attempt{}}, false
	}
	return view, true
}

// compete publishes the cancelled terminal and waits for the winner. The wait
// begins before the produce, so that a winner cannot slip past it.
func (d *Desk) compete(ctx context.Context, tenant string, id task.ID, view api.Task) (Outcome, error) {
	waiting, stop := context.WithCancel(ctx)
	won := make(chan Outcome, 1) // one winner, whether or not anybody still waits
	var wg sync.WaitGroup
	wg.Go(func() {
		if t, generation, err := d.waiter.Wait(waiting, id); err == nil {
			won <- Outcome{Task: api.OfTerminal(t, generation), Ended: true}
		}
	})
	defer func() { stop(); wg.Wait() }()

	durable := context.WithoutCancel(ctx)
	if _, err := d.pub.Terminal(durable, d.terminal(tenant, id, view)); err != nil {
		return Outcome{}, publishFault(err)
	}
	d.signal(durable, id)
	timer := time.NewTimer(d.p.Wait)
	defer timer.Stop()
	select {
	case out := <-won:
		return out, nil
	case <-timer.C:
	case <-ctx.Done():
	}
	return Outcome{Task: view}, nil
}

// terminal has no generation: it applies to the one that is open where it lands.
func (d *Desk) terminal(tenant string, id task.ID, view api.Task) *terminal.Terminal {
	t := &terminal.Terminal{
		SchemaVersion: task.SchemaVersion, TaskID: id, Status: task.Cancelled,
		Tenant: tenant, Model: view.Model, Class: view.Class, Labels: view.Labels,
		Error:   &terminal.Error{Code: fault.Cancelled, Message: "stopped by the caller"},
		EndedAt: d.pub.BrokerNow().UTC(),
	}
	if view.CreatedAt != nil {
		t.CreatedAt = *view.CreatedAt
	}
	return t
}

// signal is a hint: a worker that misses it finishes and loses the race.
func (d *Desk) signal(ctx context.Context, id task.ID) {
	ctx, cancel := context.WithTimeout(ctx, d.p.StoreTimeout)
	defer cancel()
	if err := d.store.SignalCancel(ctx, id); err != nil {
		d.log.Debug("workers not told of the cancel", "task_id", string(id), "err", err)
	}
}

func publishFault(err error) error {
	out := &fault.Error{Code: fault.Unavailable, RetryAfter: time.Second, Err: err}
	if errors.Is(err, tasktopic.ErrFull) {
		out.Message = "too many records wait for Kafka; the cancel was not taken, send it again"
		return out
	}
	out.Message = "Kafka did not confirm the cancel; send it again, a second one does no harm"
	return out
}
