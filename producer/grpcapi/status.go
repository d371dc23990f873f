package grpcapi

import (
	"context"
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/schema/fault"
)

// domain of the reasons in ErrorInfo.
const domain = "penstock"

// codeOf is the table of docs/faults.md.
func codeOf(c fault.Code) codes.Code {
	switch c {
	case fault.Malformed, fault.Rejected, fault.TooLarge, fault.Unsupported:
		return codes.InvalidArgument
	case fault.Unauthorized:
		return codes.Unauthenticated
	case fault.Forbidden:
		return codes.PermissionDenied
	case fault.NotFound, fault.Gone:
		return codes.NotFound
	case fault.Conflict:
		return codes.AlreadyExists
	case fault.Throttled:
		return codes.ResourceExhausted
	case fault.Unavailable, fault.Interrupted:
		return codes.Unavailable
	case fault.Timeout, fault.Expired:
		return codes.DeadlineExceeded
	case fault.Cancelled:
		return codes.Canceled
	case fault.BlobLost:
		return codes.DataLoss
	case fault.NotAllowed:
		return codes.Unimplemented
	}
	return codes.Internal
}

// refusal is what a caller is told of an error.
type refusal struct {
	code       fault.Code
	message    string
	param      string // path of what is wrong, if anything is
	retryAfter time.Duration
}

// refusalOf says what an error means to the caller. What nobody classified is
// our fault, and tells them nothing.
func refusalOf(err error) refusal {
	if v, ok := errors.AsType[*validate.Error](err); ok {
		return refusal{code: v.Code, message: v.Error(), param: v.Path}
	}
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return refusal{code: f.Code, message: f.Message, retryAfter: f.RetryAfter}
	}
	switch {
	case errors.Is(err, auth.ErrUnauthenticated):
		return refusal{code: fault.Unauthorized, message: "send a valid API key as the metadata `authorization: Bearer <key>`"}
	case errors.Is(err, auth.ErrForbidden):
		return refusal{code: fault.Forbidden, message: err.Error() + ": ask the operator for a key that has it"}
	case errors.Is(err, context.Canceled):
		return refusal{code: fault.Cancelled, message: "the caller went away"}
	case errors.Is(err, context.DeadlineExceeded):
		return refusal{code: fault.Timeout, message: "no answer in time: try again"}
	}
	return refusal{code: fault.Internal, message: "our fault: try again, and report the x-request-id if it stays"}
}

// statusOf gives an error its gRPC form. One that has it already is kept.
func statusOf(err error, requestID string) *status.Status {
	if err == nil {
		return status.New(codes.OK, "")
	}
	if st, ok := status.FromError(err); ok {
		return st
	}
	r := refusalOf(err)
	st := status.New(codeOf(r.code), r.message)
	info := &errdetails.ErrorInfo{Reason: string(r.code), Domain: domain}
	if r.param != "" {
		info.Metadata = map[string]string{"param": r.param}
	}
	details := []protoadapt.MessageV1{info}
	if requestID != "" {
		details = append(details, &errdetails.RequestInfo{RequestId: requestID})
	}
	if r.retryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(r.retryAfter)})
	}
	if full, err := st.WithDetails(details...); err == nil {
		return full
	}
	return st
}
