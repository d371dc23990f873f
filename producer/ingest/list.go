package ingest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/task"
)

// Result is the outcome of one task of a list.
type Result struct {
	Receipt Receipt
	Err     error
}

// AcceptAll accepts n tasks and returns their outcomes in the order given; item
// makes the i-th submission, or says why there is none. One that fails does not
// keep out the others. Tasks are handed to Kafka in the order given, so those
// of one ordering key keep it.
func (in *Intake) AcceptAll(ctx context.Context, n int, item func(i int) (Submission, error)) []Result {
	ctx = context.WithoutCancel(ctx)
	l := &list{results: make([]Result, n), decided: make([]bool, n), left: n, done: make(chan struct{})}
	began := time.Now()
	first, cancel := context.WithTimeout(ctx, in.p.PublishWait) // of all, so that a dead store is waited for once
	defer cancel()
	decide := func(i int, r Receipt, d *draft, err error) {
		if l.decide(i, Result{r, err}, d) {
			in.d.Metrics.accepted(r, err, time.Since(began))
		}
	}
	drafts := make([]*draft, n)
	for i := range n {
		d, r, err := in.check(ctx, func() (Submission, error) { return item(i) })
		if drafts[i] = d; d == nil {
			decide(i, r, nil, err)
		}
	}
	for i, err := range in.enqueue(ctx, drafts...) {
		if err != nil {
			drafts[i] = nil
			decide(i, Receipt{}, nil, err)
		}
	}
	for i, d := range drafts {
		if d == nil {
			continue
		}
		if err := in.prepare(first, d); err != nil {
			drafts[i] = nil
			decide(i, Receipt{}, d, err)
		}
	}
	for i, d := range drafts {
		if d != nil {
			in.send(ctx, first, d, func(r Receipt, err error) { decide(i, r, d, err) })
		}
	}
	if n == 0 {
		return l.results
	}
	timer := time.NewTimer(in.p.PublishWait)
	defer timer.Stop()
	select {
	case <-l.done:
	case <-timer.C:
	}
	results := l.close(in.d.Metrics)
	in.remember(ctx, l.keyed...)
	in.dequeue(ctx, l.unwritten...)
	return results
}

// check is accept up to where a task is counted behind its ordering key. Without
// a draft the item is decided.
func (in *Intake) check(ctx context.Context, item func() (Submission, error)) (*draft, Receipt, error) {
	s, err := item()
	if err != nil {
		return nil, Receipt{}, err
	}
	d, err := in.draft(s)
	if err != nil {
		return nil, Receipt{}, err
	}
	if s.Key != "" {
		known, err := in.recall(ctx, d)
		if err != nil || known {
			return nil, Receipt{ID: d.task.ID, Repeat: known}, err
		}
	}
	return d, Receipt{}, nil
}

// prepare is accept up to where the task is written: its webhook may be on its
// way, and first bounds the storing of a large payload.
func (in *Intake) prepare(first context.Context, d *draft) error {
	in.register(d)
	return in.deposit(first, d)
}

// send hands a prepared task to Kafka and does not wait for the
// acknowledgement; for that of its webhook it does, as long as first lasts.
func (in *Intake) send(ctx, first context.Context, d *draft, done func(Receipt, error)) {
	if err := d.awaitRegistration(first); err != nil {
		done(Receipt{}, err)
		return
	}
	in.d.Publisher.TaskAsync(ctx, d.task, d.pool, task.Progress{}, func(_ tasktopic.Ack, err error) {
		receipt, err := in.settled(d, err)
		if err != nil { // one answer covers many outcomes: nobody else logs this one
			in.d.Log.Debug("task not published", "task_id", string(d.task.ID), "err", err)
		}
		done(receipt, err)
	})
}

// list gathers outcomes that come from several goroutines.
type list struct {
	mu        sync.Mutex // guards all but done
	results   []Result
	decided   []bool
	keyed     []*draft // durable, with a key
	unwritten []*draft // in their queues for nothing
	left      int
	closed    bool
	done      chan struct{} // closed with the last outcome
}

// decide takes the first outcome of an item and reports whether it counts. d is
// nil for one that was not about to be written.
func (l *list) decide(i int, r Result, d *draft) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.decided[i] {
		return false
	}
	l.results[i], l.decided[i] = r, true
	switch {
	case d == nil:
	case d.leaves(r.Err):
		l.unwritten = append(l.unwritten, d)
	case r.Err == nil && d.key != "":
		l.keyed = append(l.keyed, d)
	}
	if l.left--; l.left == 0 {
		close(l.done)
	}
	return true
}

// close ends the wait: what nobody has decided by now is unknown.
func (l *list) close(m *Metrics) []Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for i := range l.results {
		if !l.decided[i] {
			err := publishFault(fmt.Errorf("list item %d: %w", i, tasktopic.ErrUnknown))
			l.results[i].Err = err
			m.Refused(err)
		}
	}
	return l.results
}
