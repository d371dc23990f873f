package httpserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
)

// Error is an answer that is not a success. Message is for the caller and says
// cause and cure; Err is for the log only.
type Error struct {
	Status     int
	Code       string // a fault.Code, the `error.type` of the body
	Message    string
	Param      string        // JSON path of what is wrong, if anything is
	RetryAfter time.Duration // 0: no Retry-After header; rounded up to seconds
	Err        error
}

// Error returns the message and, for the log, the cause.
func (e *Error) Error() string {
	if e.Err != nil {
		return e.Message + ": " + e.Err.Error()
	}
	return e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Fail returns an Error of a fault code, with that code's HTTP status.
func Fail(code fault.Code, format string, args ...any) *Error {
	return &Error{Status: StatusOf(code), Code: string(code), Message: fmt.Sprintf(format, args...)}
}

// StatusOf returns the status of a fault at the door. It differs from the one a
// waiting caller sees only for missing credentials: those are the caller's own.
func StatusOf(code fault.Code) int {
	if code == fault.Unauthorized {
		return http.StatusUnauthorized
	}
	return fault.RuleOf(code).Status
}

// StatusClientClosed is logged, and never read by anybody, when the caller went
// away before the answer.
const StatusClientClosed = 499

// ErrorWriter writes an error in the format of one face of the API. The status
// and every field of e are set.
type ErrorWriter func(c echo.Context, e *Error) error

// errorWriterKey is the Echo context key of the face's ErrorWriter.
const errorWriterKey = "penstock.error_writer"

// ErrorFormat makes the routes of a group answer their errors with w instead of
// the native envelope.
func ErrorFormat(w ErrorWriter) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			c.Set(errorWriterKey, w)
			return next(c)
		}
	}
}

// OK answers with data in the native envelope.
func OK(c echo.Context, status int, data any) error {
	var out bytes.Buffer // encoded before the head is sent, so that a failure can still be told
	if err := encode(&out, success{Message: "ok", Data: data, RequestID: RequestID(c)}); err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	return c.Blob(status, echo.MIMEApplicationJSON, out.Bytes())
}

// success is api.Envelope with its data not encoded yet: encoding it on its own
// first would copy and scan it twice more.
type success struct {
	Code      int    `json:"code"`
	Message   string `json:"message"`
	Data      any    `json:"data"`
	RequestID string `json:"request_id"`
}

// AsError turns whatever a handler returned into an Error: an *Error or a
// *fault.Error as it is, the errors of Echo, net/http, auth and context by what
// they mean, and everything else into a 500 that tells the caller nothing.
func AsError(err error) *Error {
	var (
		own      *Error
		failed   *fault.Error
		routed   *echo.HTTPError
		tooLarge *http.MaxBytesError
	)
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &failed):
		return &Error{Status: StatusOf(failed.Code), Code: string(failed.Code), Message: failed.Message, RetryAfter: failed.RetryAfter, Err: failed.Err}
	case errors.As(err, &routed):
		return ofEcho(routed)
	case errors.As(err, &tooLarge):
		return tooLargeError(tooLarge.Limit)
	case errors.Is(err, auth.ErrUnauthenticated):
		e := Fail(fault.Unauthorized, "send a valid API key as `Authorization: Bearer <key>`")
		e.Err = err
		return e
	case errors.Is(err, auth.ErrForbidden):
		e := Fail(fault.Forbidden, "%s: ask the operator for a key that has it", err)
		e.Err = err
		return e
	case errors.Is(err, context.Canceled):
		return &Error{Status: StatusClientClosed, Code: string(fault.Cancelled), Message: "the caller went away", Err: err}
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Status: http.StatusGatewayTimeout, Code: string(fault.Timeout), Message: "no answer in time: try again", Err: err}
	default:
		e := Fail(fault.Internal, "our fault: try again, and report the request_id if it stays")
		e.Err = err
		return e
	}
}

// ofEcho translates the router's own errors, and those of Echo's helpers.
func ofEcho(err *echo.HTTPError) *Error {
	code, message := fault.Malformed, fmt.Sprint(err.Message)
	switch {
	case err.Code == http.StatusNotFound:
		code, message = fault.NotFound, "no such route: see /docs for the ones there are"
	case err.Code == http.StatusMethodNotAllowed:
		code, message = fault.NotAllowed, "this route does not take this method: see the Allow header"
	case err.Code == http.StatusUnauthorized:
		code = fault.Unauthorized
	case err.Code == http.StatusForbidden:
		code = fault.Forbidden
	case err.Code == http.StatusRequestEntityTooLarge:
		code = fault.TooLarge
	case err.Code == http.StatusUnsupportedMediaType:
		code = fault.Unsupported
	case err.Code == http.StatusTooManyRequests:
		code = fault.Throttled
	case err.Code == http.StatusServiceUnavailable:
		code = fault.Unavailable
	case err.Code >= 500:
		code = fault.Internal
	}
	return &Error{Status: err.Code, Code: string(code), Message: message, Err: err.Internal}
}

func tooLargeError(limit int64) *Error {
	return Fail(fault.TooLarge, "the body is over the limit of %d bytes: send less, or split it", limit)
}

// handleError is Echo's HTTPErrorHandler.
func (s *Server) handleError(err error, c echo.Context) {
	if c.Response().Committed {
		return // the stream has begun; its handler has told the reader what it could
	}
	e := AsError(err)
	if e.Status >= http.StatusInternalServerError {
		s.log.Log(c.Request().Context(), levelOf(e.Status), "request failed", "err", err, "route", c.Path(), "request_id", RequestID(c))
	}
	setErrorHeaders(c.Response().Header(), e)
	write := ErrorWriter(writeNative)
	if w, ok := c.Get(errorWriterKey).(ErrorWriter); ok {
		write = w
	}
	if err := write(c, e); err != nil {
		s.log.Debug("write error answer", "err", err, "request_id", RequestID(c))
	}
}

func setErrorHeaders(h http.Header, e *Error) {
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64(math.Ceil(e.RetryAfter.Seconds())), 10))
	}
	if e.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
}

// writeNative answers in the native envelope.
func writeNative(c echo.Context, e *Error) error {
	if c.Request().Method == http.MethodHead {
		return c.NoContent(e.Status)
	}
	return writeJSON(c, e.Status, api.Envelope{
		Code: e.Status, Message: e.Message, Data: json.RawMessage("null"),
		Error: &api.Error{Type: fault.Code(e.Code), Param: e.Param}, RequestID: RequestID(c),
	})
}

func writeJSON(c echo.Context, status int, v any) error {
	c.Response().Header().Set(echo.HeaderContentType, echo.MIMEApplicationJSON)
	c.Response().WriteHeader(status)
	return encode(c.Response(), v)
}

// encode does not escape <, > and &: model output is full of them.
func encode(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
