package ws

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/lookup"
	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
)

// take does what a message says, and leaves the message. Watches change in the
// order in which they were asked for; submits and cancels run side by side.
func (s *socket) take(ctx context.Context, raw message) error {
	m, err := s.decode(raw.data)
	if err != nil {
		raw.leave()
		s.a.metrics.messages.WithLabelValues(opUnreadable).Inc()
		return err
	}
	s.a.metrics.messages.WithLabelValues(string(m.Op)).Inc()
	switch m.Op {
	case api.OpSubmit, api.OpInterrupt:
		s.start(m, raw, func() error { return s.submit(ctx, m, raw.pass != nil) })
		return nil
	case api.OpCancel:
		s.start(m, raw, func() error { return s.cancel(ctx, m) })
		return nil
	case api.OpSubscribe:
		err = s.subscribe(ctx, m)
	case api.OpUnsubscribe:
		err = s.unsubscribe(ctx, m)
	case api.OpPing:
		s.reply(api.SocketReply{Op: api.OpPong, Ref: m.Ref})
	}
	raw.leave()
	if err != nil {
		s.fail(m.Ref, m.TaskID, err)
	}
	return nil
}

// start runs what takes its time beside the reader, if a slot is free.
func (s *socket) start(m api.SocketRequest, raw message, do func() error) {
	select {
	case s.slots <- struct{}{}:
	default:
		raw.leave()
		busy := fault.New(fault.Throttled, "more than %d submits and cancels of this socket are under way: wait for answers before sending more", cap(s.slots))
		busy.RetryAfter = time.Second
		s.fail(m.Ref, m.TaskID, busy)
		return
	}
	s.work.Go(func() {
		defer func() { <-s.slots }()
		defer raw.leave()
		if err := do(); err != nil {
			s.fail(m.Ref, m.TaskID, err)
		}
	})
}

// submit accepts a task, and for an interrupt then stops the one it replaces. A
// client that is gone by then changes nothing of either.
func (s *socket) submit(ctx context.Context, m api.SocketRequest, metered bool) error {
	watch := m.Watch == nil || *m.Watch
	if err := s.maySubmit(m, watch); err != nil {
		s.a.d.Metrics.Refused(err)
		return err
	}
	receipt, err := s.accept(ctx, m, metered)
	if err != nil {
		return err
	}
	accepted := api.SocketReply{Op: api.OpAccepted, Ref: m.Ref, TaskID: receipt.ID, Repeat: receipt.Repeat}
	interrupts := m.Op == api.OpInterrupt && m.TaskID != receipt.ID // a repeat may name its own outcome
	if interrupts {
		accepted.Replaces = m.TaskID
	}
	s.reply(accepted)
	if watch {
		s.want(ctx, ask{op: api.OpSubmit, ref: m.Ref, watch: follow.Watch{ID: receipt.ID}})
	}
	if interrupts {
		return s.cancel(ctx, m)
	}
	return nil
}

// maySubmit finds what would stop an op halfway before it begins.
func (s *socket) maySubmit(m api.SocketRequest, watch bool) error {
	if err := s.who.Require(auth.ScopeSubmit); err != nil {
		return err
	}
	if watch {
		if err := s.who.Require(auth.ScopeRead); err != nil {
			return err
		}
	}
	if m.Op == api.OpInterrupt {
		_, err := lookup.CheckID(s.a.d.IDs, string(m.TaskID), s.who.Tenant)
		return err
	}
	return nil
}

func (s *socket) accept(ctx context.Context, m api.SocketRequest, metered bool) (ingest.Receipt, error) {
	r, err := s.body(m)
	if err == nil && !metered {
		var pass *admit.Pass
		if pass, err = s.a.d.Limits.Enter(s.who.Tenant, int64(len(m.Body))); err == nil {
			defer pass.Leave()
		}
	}
	if err != nil {
		s.a.d.Metrics.Refused(err)
		return ingest.Receipt{}, err
	}
	return s.a.d.Intake.Accept(ctx, ingest.Submission{Tenant: s.who.Tenant, Request: r, Key: m.IdempotencyKey, Body: m.Body})
}

// body decodes the submit in a message, which the schema has passed: no name in
// it is unknown, misspelt or given twice.
func (s *socket) body(m api.SocketRequest) (*api.SubmitRequest, error) {
	switch {
	case int64(len(m.Body)) > s.limit:
		return nil, fault.New(fault.TooLarge, "the body is over the limit of %d bytes: send less, or split it", s.limit)
	case len(m.IdempotencyKey) > api.MaxName:
		return nil, &validate.Error{Code: fault.TooLarge, Path: "idempotency_key", Offset: -1, Reason: "is too long"}
	}
	var r api.SubmitRequest
	if err := json.Unmarshal(m.Body, &r); err != nil {
		return nil, &validate.Error{Code: fault.Malformed, Path: "body", Offset: -1, Reason: "cannot be read"}
	}
	return &r, nil
}

// cancel stops a task and tells how it ended, or what is known of it while the
// winner is not known.
func (s *socket) cancel(ctx context.Context, m api.SocketRequest) error {
	if err := s.who.Require(auth.ScopeSubmit); err != nil {
		return err
	}
	out, err := s.a.d.Desk.Cancel(ctx, s.who.Tenant, m.TaskID)
	if err != nil {
		return err
	}
	view, release, err := s.a.d.Results.Task(context.WithoutCancel(ctx), out.Task)
	if err != nil {
		return claimcheck.Fault(err)
	}
	defer release()
	s.reply(api.SocketReply{Op: api.OpOutcome, Ref: m.Ref, Task: &view})
	return nil
}

// subscribe looks a task up and has the pump watch it.
func (s *socket) subscribe(ctx context.Context, m api.SocketRequest) error {
	watch, err := s.mayWatch(m)
	if err != nil {
		return err
	}
	open, err := s.a.look(ctx, watch)
	if err != nil {
		return err
	}
	if len(open) == 0 {
		s.reply(api.SocketReply{Op: api.OpUnsubscribed, Ref: m.Ref, TaskID: m.TaskID, Reason: "ended"})
		return nil
	}
	s.want(ctx, ask{op: api.OpSubscribe, ref: m.Ref, watch: watch})
	return nil
}

// look is lookup.Open within the time that a reader has, who must read pongs
// too. A Redis that did not answer in time is left alone for a moment: then the
// log's end alone decides.
func (a *API) look(ctx context.Context, watch follow.Watch) ([]follow.Watch, error) {
	ctx, cancel := context.WithTimeout(ctx, a.p.StoreTimeout)
	defer cancel()
	if time.Now().UnixNano() < a.quiet.Load() {
		cancel()
	}
	open, err := lookup.Open(ctx, a.d.Store, a.d.Follower, []follow.Watch{watch})
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		a.quiet.Store(time.Now().Add(quietFor).UnixNano())
	}
	return open, err
}

func (s *socket) mayWatch(m api.SocketRequest) (follow.Watch, error) {
	if err := s.who.Require(auth.ScopeRead); err != nil {
		return follow.Watch{}, err
	}
	id, err := lookup.CheckID(s.a.d.IDs, string(m.TaskID), s.who.Tenant)
	if err == nil && s.who.Only != "" && s.who.Only != id {
		err = fault.New(fault.Forbidden, "the ticket is not for this task: ask for one that is")
	}
	if err != nil || m.After == "" {
		return follow.Watch{ID: id}, err
	}
	after, err := event.ParseID(m.After)
	if err != nil {
		return follow.Watch{}, &validate.Error{Code: fault.Malformed, Path: "after", Offset: -1, Reason: "must be an event id such as 0-1"}
	}
	return follow.Watch{ID: id, After: after}, nil
}

func (s *socket) unsubscribe(ctx context.Context, m api.SocketRequest) error {
	id, err := lookup.CheckID(s.a.d.IDs, string(m.TaskID), s.who.Tenant)
	if err != nil {
		return err
	}
	s.want(ctx, ask{op: api.OpUnsubscribe, ref: m.Ref, watch: follow.Watch{ID: id}})
	return nil
}
