package grpcapi

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/parting"
	"github.com/penstock/penstock/internal/rpc"
	"github.com/penstock/penstock/internal/telemetry"
)

// Metadata that every call may carry.
const (
	headerRequestID   = "x-request-id"
	headerAuthorize   = "authorization"
	headerIdempotency = "idempotency-key"
)

// scopes says what a caller of each method must hold.
func scopes() map[string]string {
	return map[string]string{
		rpc.Inference_Submit_FullMethodName:             auth.ScopeSubmit,
		rpc.Inference_Cancel_FullMethodName:             auth.ScopeSubmit,
		rpc.Inference_Get_FullMethodName:                auth.ScopeRead,
		rpc.Inference_Watch_FullMethodName:              auth.ScopeRead,
		rpc.MessageRouter_ForwardRequest_FullMethodName: auth.ScopeSubmit,
	}
}

// public methods are health and reflection: the contract is no secret.
func public(method string) bool {
	return strings.HasPrefix(method, "/grpc.health.") || strings.HasPrefix(method, "/grpc.reflection.")
}

// known is the name of a method that a service has: others are the caller's
// invention and belong in no label.
func known(method string) string {
	if _, ours := scopes()[method]; ours || public(method) {
		return method
	}
	return "unknown"
}

// tap authenticates a call by its headers, so that nobody unknown has a message
// read. It runs where the connection is read: a slow authenticator holds up this
// connection alone.
func (s *Server) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	if public(info.FullMethodName) {
		return ctx, nil
	}
	c := begin(ctx, known(info.FullMethodName))
	p, err := s.authenticate(ctx, info)
	if err != nil {
		return ctx, s.end(c, err)
	}
	return auth.With(ctx, p), nil
}

func (s *Server) authenticate(ctx context.Context, info *tap.Info) (_ auth.Principal, err error) {
	defer func() {
		if r := recover(); r != nil { // nobody above would catch it
			err = s.panicked(&call{method: known(info.FullMethodName)}, r)
		}
	}()
	return s.d.Auth.Authenticate(ctx, bearer(info.Header))
}

// call is one call on its way.
type call struct {
	ctx       context.Context
	method    string
	requestID string
	began     time.Time
}

// begin gives a call its id and its place in a trace.
func begin(ctx context.Context, method string) *call {
	md, _ := metadata.FromIncomingContext(ctx)
	c := &call{method: method, began: time.Now(), requestID: telemetry.RequestID(first(md, headerRequestID))}
	c.ctx = telemetry.WithTraceParent(ctx, telemetry.ChildTraceParent(first(md, telemetry.HeaderTraceParent)))
	return c
}

// allowed refuses callers without the method's scope.
func (c *call) allowed() error {
	scope, known := scopes()[c.method]
	if !known {
		return nil
	}
	p, ok := auth.From(c.ctx)
	if !ok {
		return fmt.Errorf("%s was not authenticated", c.method) // a programmer's error: nobody is served
	}
	return p.Require(scope)
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (answer any, err error) {
	c := begin(ctx, info.FullMethod)
	defer func() {
		if r := recover(); r != nil {
			err = s.panicked(c, r)
		}
		err = s.end(c, err)
	}()
	if err := grpc.SetHeader(ctx, metadata.Pairs(headerRequestID, c.requestID)); err != nil {
		return nil, fmt.Errorf("set header: %w", err)
	}
	if err := c.allowed(); err != nil {
		return nil, err
	}
	return handle(c.ctx, req)
}

func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	c := begin(ss.Context(), info.FullMethod)
	defer func() {
		if r := recover(); r != nil {
			err = s.panicked(c, r)
		}
		err = s.end(c, err)
	}()
	if err := ss.SetHeader(metadata.Pairs(headerRequestID, c.requestID)); err != nil {
		return fmt.Errorf("set header: %w", err)
	}
	if err := c.allowed(); err != nil {
		return err
	}
	if public(c.method) { // a balancer watches health for ever: no drain waits for that
		watching, stop := context.WithCancel(c.ctx)
		defer stop()
		defer context.AfterFunc(s.draining, stop)()
		return handle(srv, &inContext{ss, watching})
	}
	return handle(srv, &inContext{ss, c.ctx})
}

// inContext is a stream with the context of its call.
type inContext struct {
	grpc.ServerStream
	ctx context.Context
}

// Context returns the call's.
func (s *inContext) Context() context.Context { return s.ctx }

func (s *Server) panicked(c *call, r any) error {
	s.d.Log.Error("handler panicked", "err", r, "method", c.method, "request_id", c.requestID, "stack", string(debug.Stack()))
	return fmt.Errorf("panic: %v", r)
}

// end writes the access log line, counts the call and gives its error the form
// that callers read.
func (s *Server) end(c *call, err error) error {
	st, took := statusOf(err, c.requestID), time.Since(c.began)
	if gone := c.ctx.Err(); gone != nil && st.Code() == codes.Unavailable {
		st = statusOf(gone, c.requestID) // it could not be sent: nobody is there
	}
	s.metrics.observe(c.method, st.Code(), took)
	level := slog.LevelInfo
	if public(c.method) {
		level = slog.LevelDebug
	}
	s.d.Log.LogAttrs(context.WithoutCancel(c.ctx), level, "rpc",
		slog.String("method", c.method),
		slog.String("code", st.Code().String()),
		slog.Float64("response_time_ms", float64(took.Microseconds())/1000),
		slog.String("request_id", c.requestID),
		slog.String("trace_id", telemetry.TraceID(telemetry.TraceParent(c.ctx))),
		slog.String("remote_ip", remoteIP(c.ctx)))
	switch code := st.Code(); {
	case code == codes.Internal, code == codes.DataLoss, code == codes.Unknown:
		s.d.Log.Error("rpc failed", "err", err, "method", c.method, "request_id", c.requestID)
	case code == codes.Unavailable && !parting.Asked(err):
		s.d.Log.Warn("rpc failed", "err", err, "method", c.method, "request_id", c.requestID)
	}
	return st.Err()
}

func remoteIP(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		return p.Addr.String()
	}
	return host
}

// bearer cuts the token out of "Bearer <token>"; the scheme has no case.
func bearer(md metadata.MD) string {
	scheme, token, _ := strings.Cut(first(md, headerAuthorize), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

func first(md metadata.MD, name string) string {
	if values := md.Get(name); len(values) > 0 {
		return values[0]
	}
	return ""
}
