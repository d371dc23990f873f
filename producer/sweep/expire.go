package sweep

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

const (
	// comeBack is when a task that was taken is looked at again, if it could
	// not be ended: above the delivery timeout of a record.
	comeBack = 30 * time.Second
	// applied is when one is whose terminal is durable: by then it should be
	// projected, which takes it out of the index.
	applied = 10 * time.Minute
)

// sweep ends what is due, until nothing is.
func (s *Sweeper) sweep(ctx context.Context) error {
	for ctx.Err() == nil {
		now := s.pub.BrokerNow()
		due, err := s.store.Due(ctx, now.Add(-s.p.Grace), now.Add(comeBack), s.p.Batch)
		if len(due) == 0 || err != nil {
			return err
		}
		if err := s.end(ctx, due); err != nil {
			return err
		}
	}
	return nil
}

// end writes the terminals of those that are open.
func (s *Sweeper) end(ctx context.Context, due []taskstore.Due) error {
	ids := make([]task.ID, len(due))
	for i, d := range due {
		ids[i] = d.ID
	}
	found, err := s.store.GetMany(ctx, ids)
	if err != nil {
		return err
	}
	var gone []taskstore.Due
	ends := make(map[taskstore.Due]*terminal.Terminal, len(due))
	for i, d := range due {
		if st := found[i].State; st.Generation > d.Generation || st.Generation == d.Generation && !st.Open() {
			gone = append(gone, d)
			continue
		}
		ends[d] = s.expired(d, found[i])
	}
	s.metrics.tasks.WithLabelValues(outcomeEnded).Add(float64(len(gone)))
	durable, err := s.publish(ctx, ends)
	s.metrics.tasks.WithLabelValues(outcomeExpired).Add(float64(len(durable)))
	s.metrics.tasks.WithLabelValues(outcomeFailed).Add(float64(len(ends) - len(durable)))
	again := s.pub.BrokerNow().Add(applied)
	return errors.Join(err, s.store.DropDue(ctx, gone), s.store.PostponeDue(ctx, durable, again))
}

// expired bears the generation whose deadline passed: a redrive that opens the
// next one meanwhile has a deadline of its own.
func (s *Sweeper) expired(d taskstore.Due, f taskstore.Found) *terminal.Terminal {
	generation := d.Generation
	t := &terminal.Terminal{
		SchemaVersion: task.SchemaVersion, TaskID: d.ID, Status: task.Expired, Generation: &generation,
		Tenant: d.Tenant, Model: f.View.Model, Class: f.View.Class, Labels: f.View.Labels,
		Error:   &terminal.Error{Code: fault.Expired, Message: "the task's deadline passed before a worker took it"},
		EndedAt: s.pub.BrokerNow().UTC(),
	}
	if f.View.CreatedAt != nil {
		t.CreatedAt = *f.View.CreatedAt
	}
	return t
}

// publish writes terminals side by side and returns whose are durable, with the
// first error.
func (s *Sweeper) publish(ctx context.Context, ends map[taskstore.Due]*terminal.Terminal) ([]taskstore.Due, error) {
	var mu sync.Mutex
	var durable []taskstore.Due
	var first error
	left, done := len(ends), make(chan struct{})
	if left == 0 {
		return nil, nil
	}
	for d, t := range ends {
		s.pub.TerminalAsync(t, func(_ tasktopic.Ack, err error) {
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				durable = append(durable, d)
			} else if first == nil {
				first = err
			}
			if left--; left == 0 {
				close(done)
			}
		})
	}
	select {
	case <-done:
	case <-ctx.Done(): // what is not known now comes back to somebody
	}
	mu.Lock()
	defer mu.Unlock()
	return durable[:len(durable):len(durable)], first
}
