package grpcapi

import (
	"context"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/lookup"
	"github.com/penstock/penstock/internal/rpc"
	"github.com/penstock/penstock/schema/task"
)

// Get implements rpc.InferenceServer.
func (s *Server) Get(ctx context.Context, r *rpc.GetRequest) (*rpc.GetResponse, error) {
	wait, err := waitOf(r.GetWait())
	if err != nil {
		return nil, err
	}
	id, err := s.check(ctx, r.GetTaskId())
	if err != nil {
		return nil, err
	}
	view, release, err := s.tasks.Task(ctx, id, wait, s.draining)
	if err != nil {
		return nil, err
	}
	defer release() // its room: gRPC encodes the answer a moment later
	return &rpc.GetResponse{Task: taskOf(view)}, nil
}

// Cancel implements rpc.InferenceServer.
func (s *Server) Cancel(ctx context.Context, r *rpc.CancelRequest) (*rpc.CancelResponse, error) {
	p, _ := auth.From(ctx)
	out, err := s.d.Cancels.Cancel(ctx, p.Tenant, task.ID(r.GetTaskId()))
	if err != nil {
		return nil, err
	}
	view, release, err := s.d.Results.Task(ctx, out.Task)
	if err != nil {
		return nil, claimcheck.Fault(err)
	}
	defer release()
	return &rpc.CancelResponse{Task: taskOf(view), Ended: out.Ended}, nil
}

// check returns the id of a task that the caller was given.
func (s *Server) check(ctx context.Context, raw string) (task.ID, error) {
	p, _ := auth.From(ctx)
	return lookup.CheckID(s.d.IDs, raw, p.Tenant)
}
