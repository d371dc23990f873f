package openai

import (
	"cmp"
	"net/http"

	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// Codes of errors that are no faults of ours, by the names that clients know.
const (
	CodeModelNotFound = "model_not_found"
	CodeInterrupted   = "generation_interrupted"
	CodeNoPrevious    = "previous_response_not_found"

	codeInvalidKey = "invalid_api_key"
	codeRateLimit  = "rate_limit_exceeded"
)

// Failure is an error as OpenAI clients read it: all four members, the code a
// string or null.
type Failure struct {
	Status  int     `json:"-"`
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

// Body is the failure as a body, or as the data of a stream's last event.
func (f Failure) Body() []byte { return encode(map[string]any{"error": f}) }

// NewFailure returns a failure with a status that OpenAI clients know. Param
// and code may be empty.
func NewFailure(status int, code, message, param string) Failure {
	f := Failure{Status: statusOf(status), Message: message}
	f.Type = typeOf(f.Status)
	switch {
	case f.Status == http.StatusUnauthorized:
		code = codeInvalidKey
	case f.Status == http.StatusTooManyRequests:
		code = codeRateLimit
	case f.Status == http.StatusNotFound && param == "model":
		code = CodeModelNotFound
	case f.Status == http.StatusNotFound && param == "previous_response_id":
		code = CodeNoPrevious
	}
	if param != "" {
		f.Param = &param
	}
	if code != "" {
		f.Code = &code
	}
	return f
}

// statusOf is the nearest of the statuses that clients know what to do about.
func statusOf(status int) int {
	switch {
	case status == http.StatusUnsupportedMediaType:
		return http.StatusBadRequest
	case status == http.StatusGone:
		return http.StatusNotFound
	case status == http.StatusNotImplemented:
		return http.StatusInternalServerError
	case status == http.StatusBadGateway:
		return http.StatusServiceUnavailable
	}
	return status
}

func typeOf(status int) string {
	switch {
	case status == http.StatusUnauthorized:
		return "authentication_error"
	case status == http.StatusForbidden:
		return "permission_error"
	case status == http.StatusTooManyRequests:
		return "rate_limit_error"
	case status >= http.StatusInternalServerError:
		return "server_error"
	default:
		return "invalid_request_error"
	}
}

// Failed reports whether a task has ended without an answer: also one that has
// succeeded and whose output was lost since.
func Failed(status task.Status, out *task.Output, e *terminal.Error) bool {
	return status != task.Succeeded || out == nil && e != nil
}

// FailureOf is what such an end means to its caller. The pipeline has tried all
// that it may: asking again gives the same.
func FailureOf(status task.Status, e *terminal.Error) Failure {
	if e == nil {
		e = &terminal.Error{Code: fault.Internal, Message: "the task ended as " + string(status) + " and does not say why"}
	}
	switch status {
	case task.Expired:
		e = &terminal.Error{Code: fault.Expired, Message: e.Message}
	case task.Cancelled:
		e = &terminal.Error{Code: fault.Cancelled, Message: e.Message}
	}
	answer := fault.RuleOf(e.Code).Status
	if e.Code == fault.Rejected && e.Status >= 400 && e.Status < 500 {
		answer = e.Status // the engine's own word on the input
	}
	return NewFailure(answer, string(e.Code), cmp.Or(e.Message, string(e.Code)), "")
}

// Interrupted ends a stream that cannot go on where it was.
func Interrupted(id task.ID) Failure {
	return NewFailure(http.StatusServiceUnavailable, CodeInterrupted,
		"the answer was interrupted after a part of it was sent, and cannot be continued; ask again (task "+string(id)+")", "")
}
