package grpcapi

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/lookup"
	"github.com/penstock/penstock/internal/parting"
	"github.com/penstock/penstock/internal/rpc"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
)

// watchStream is the caller's side of a watch.
type watchStream = grpc.ServerStreamingServer[rpc.WatchResponse]

// Watch implements rpc.InferenceServer.
func (s *Server) Watch(r *rpc.WatchRequest, out watchStream) error {
	ctx := out.Context()
	id, err := s.check(ctx, r.GetTaskId())
	if err != nil {
		return err
	}
	watch := follow.Watch{ID: id}
	if r.GetAfter() != "" {
		if watch.After, err = event.ParseID(r.GetAfter()); err != nil {
			return invalid("after", "must be an event id such as 0-1")
		}
	}
	open, err := lookup.Open(ctx, s.d.Store, s.d.Follower, []follow.Watch{watch})
	if err != nil || len(open) == 0 {
		return err
	}
	p, _ := auth.From(ctx)
	leave, err := s.seats.Take(p.Tenant, "watches", "end some before you open more")
	if err != nil {
		return err
	}
	defer leave()
	s.metrics.watchers.Inc()
	defer s.metrics.watchers.Dec()
	return s.pump(out, open)
}

// pump sends events until the task's end, or until the caller, the watch's age
// or a drain ends it.
func (s *Server) pump(out watchStream, watches []follow.Watch) error {
	ctx, cancel := context.WithCancelCause(out.Context())
	defer cancel(nil)
	defer parting.Terms{Lifetime: s.p.Lifetime, Draining: s.draining, Spread: s.p.DrainSpread}.Schedule(cancel)()
	events, err := s.d.Follower.FollowMany(ctx, watches)
	if err != nil {
		return err
	}
	defer events.Close()
	to := s.newSender(out)
	defer to.close()
	recheck := time.NewTicker(s.p.Recheck)
	defer recheck.Stop()
	for {
		it, err := events.Poll(ctx, recheck.C)
		switch {
		case err == nil:
			err = s.pass(ctx, to, it)
		case errors.Is(err, follow.ErrIdle):
			err = s.recheck(ctx)
		case errors.Is(err, io.EOF):
			return nil
		}
		if err != nil {
			return goodbye(to, err)
		}
	}
}

// pass sends one event, a large output in it.
func (s *Server) pass(ctx context.Context, to *sender, it follow.Item) error {
	e, err := it.Event()
	if err != nil {
		return err
	}
	if e.Result != nil {
		whole, release, err := s.d.Results.Terminal(ctx, e.Result)
		if err != nil {
			return lookup.Unavailable(err)
		}
		defer release()
		e.Result = whole
	}
	if err := to.send(&rpc.WatchResponse{Event: eventOf(e)}); err != nil {
		return err
	}
	s.metrics.events.Inc()
	return nil
}

// recheck authenticates the caller again: keys are revoked, and expire.
func (s *Server) recheck(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	p, err := s.d.Auth.Authenticate(ctx, bearer(md))
	if err != nil {
		return err
	}
	return p.Require(auth.ScopeRead)
}

// goodbye is the error of a watch that ends before its task. A caller who is to
// come back is told so by an event too, since not every client shows details.
func goodbye(to *sender, err error) error {
	switch {
	case parting.Asked(err):
	case errors.Is(err, follow.ErrSlow), errors.Is(err, errSlow):
		return comeBack(err, time.Second) // it would not read a goodbye
	default:
		return err
	}
	wait := parting.Wait()
	told := &rpc.Event{Type: string(event.Reconnect), Reason: parting.Reason(err), RetryAfter: durationpb.New(wait)}
	if sendErr := to.send(&rpc.WatchResponse{Event: told}); sendErr != nil {
		return sendErr
	}
	return comeBack(err, wait)
}

func comeBack(err error, wait time.Duration) error {
	return &fault.Error{Code: fault.Unavailable, Message: "watch again after the last event id", RetryAfter: wait, Err: err}
}
