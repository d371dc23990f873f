package grpcapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/rpc"
	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// labelUserID keeps who wrote a message, as the caller knows them.
const labelUserID = "user_id"

// Submit implements rpc.InferenceServer.
func (s *Server) Submit(ctx context.Context, r *rpc.SubmitRequest) (*rpc.SubmitResponse, error) {
	wait, err := waitOf(r.GetWait())
	if err != nil {
		return nil, err
	}
	r.Wait = nil // what is left is the body that HTTP would have got
	id, err := s.accept(ctx, r, func(body []byte, key string) (ingest.Submission, error) {
		var in api.SubmitRequest
		if err := s.submit.Decode(body, &in); err != nil {
			return ingest.Submission{}, err
		}
		return ingest.Submission{Request: &in, Key: key, Body: body}, nil
	})
	if err != nil {
		return nil, err
	}
	a, done, err := s.accepted(ctx, id, wait)
	if err != nil {
		return nil, err
	}
	return &rpc.SubmitResponse{
		TaskId: string(id), Status: string(a.Status), StatusUrl: a.StatusURL, EventsUrl: a.EventsURL, CancelUrl: a.CancelURL, Task: done,
	}, nil
}

// ForwardRequest implements rpc.MessageRouterServer.
func (s *Server) ForwardRequest(ctx context.Context, r *rpc.ForwardRequestRequest) (*rpc.ForwardRequestResponse, error) {
	wait, err := waitOf(r.GetWait())
	if err != nil {
		return nil, err
	}
	r.Wait = nil
	id, err := s.accept(ctx, r, func(body []byte, key string) (ingest.Submission, error) { return s.message(r, body, key) })
	if err != nil {
		return nil, err
	}
	a, done, err := s.accepted(ctx, id, wait)
	if err != nil {
		return nil, err
	}
	return &rpc.ForwardRequestResponse{
		TaskId: string(id), Status: string(a.Status), StatusUrl: a.StatusURL, EventsUrl: a.EventsURL, CancelUrl: a.CancelURL, Task: done,
	}, nil
}

// message makes the submission of a message, checked as POST /api/forward is.
func (s *Server) message(r *rpc.ForwardRequestRequest, body []byte, key string) (ingest.Submission, error) {
	if r.GetInputText() == "" {
		return ingest.Submission{}, invalid("input_text", "is required")
	}
	m := api.ForwardRequest{
		MessageID: r.GetMessageId(), Source: task.Source(r.GetSource()), SessionID: r.GetSessionId(), Memory: r.GetMemory(),
		Payload: task.Payload{Text: r.GetInputText()},
	}
	if m.Source == "" {
		m.Source = task.SourceAPI
	}
	if w := r.GetWebhook(); w != nil {
		m.Webhook = &task.Webhook{URL: w.GetUrl(), Events: w.GetEvents()}
	}
	if r.Context != nil {
		given, err := r.Context.MarshalJSON()
		if err != nil {
			return ingest.Submission{}, invalid("context", "has a number that JSON cannot say")
		}
		m.Payload.Context = given
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return ingest.Submission{}, fmt.Errorf("encode message: %w", err)
	}
	if err := s.forward.Decode(raw, &m); err != nil {
		return ingest.Submission{}, err
	}
	out, err := ingest.OfMessage(m, body, key)
	if err == nil && r.GetUserId() != "" {
		out.Request.Labels[labelUserID] = r.GetUserId()
	}
	return out, err
}

// accept accepts the task of a request: its JSON is what is checked, and what
// an idempotency key is bound to.
func (s *Server) accept(ctx context.Context, r proto.Message, decode func(body []byte, key string) (ingest.Submission, error)) (task.ID, error) {
	p, _ := auth.From(ctx)
	md, _ := metadata.FromIncomingContext(ctx)
	in, leave, err := s.read(p.Tenant, md, r, decode)
	if err != nil {
		s.d.Metrics.Refused(err)
		return "", err
	}
	defer leave()
	in.Tenant = p.Tenant
	receipt, err := s.d.Intake.Accept(ctx, in)
	return receipt.ID, err
}

// read counts a request among the tenant's bytes in flight, and decodes it.
func (s *Server) read(
	tenant string, md metadata.MD, r proto.Message, decode func(body []byte, key string) (ingest.Submission, error),
) (_ ingest.Submission, leave func(), err error) {
	key, err := ingest.Key(md.Get(headerIdempotency))
	if err != nil {
		return ingest.Submission{}, nil, err
	}
	pass, err := s.d.Limits.Enter(tenant, int64(proto.Size(r)))
	if err != nil {
		return ingest.Submission{}, nil, err
	}
	body, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(r)
	if err != nil {
		pass.Leave()
		return ingest.Submission{}, nil, invalid("", "has a value that JSON cannot say")
	}
	in, err := decode(body, key)
	if err != nil {
		pass.Leave()
		return ingest.Submission{}, nil, err
	}
	return in, pass.Leave, nil
}

// accepted says what was accepted and, to a caller who waits, how it ended. An
// end that cannot be read now is left to Get.
func (s *Server) accepted(ctx context.Context, id task.ID, wait time.Duration) (api.Accepted, *rpc.Task, error) {
	out := api.NewAccepted(id)
	if wait == 0 {
		return out, nil, nil
	}
	view, release, err := s.tasks.Task(ctx, id, wait, s.draining)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return out, nil, err // nobody reads it
	case err != nil:
		return out, nil, nil //nolint:nilerr // the task is accepted, and that must be told
	}
	defer release()
	if !view.Status.Terminal() {
		return out, nil, nil
	}
	out.Status = view.Status
	return out, taskOf(view), nil
}

// waitOf reads a wait, cut to api.MaxWait.
func waitOf(d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if d.CheckValid() != nil || d.AsDuration() < 0 {
		return 0, invalid("wait", "must not be negative")
	}
	return min(d.AsDuration(), api.MaxWait), nil
}

func invalid(path, reason string) error {
	return &validate.Error{Code: fault.Malformed, Path: path, Offset: -1, Reason: reason}
}
