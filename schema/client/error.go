package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
)

// Error is an answer with an error status.
type Error struct {
	Status     int           // of HTTP
	Type       fault.Code    // why; empty if the answer was not a Penstock's
	Message    string        // cause and cure, as the server wrote them
	Param      string        // JSON path of what is wrong, if anything is
	RequestID  string        // for who looks into it
	RetryAfter time.Duration // the server's wish; 0 if it has none
}

// Error implements error.
func (e *Error) Error() string {
	msg := e.Message
	if msg == "" {
		msg = http.StatusText(e.Status)
	}
	if e.Param != "" {
		msg += " (at " + e.Param + ")"
	}
	msg = fmt.Sprintf("%d %s: %s", e.Status, e.Type, msg)
	if e.RetryAfter > 0 {
		msg += fmt.Sprintf("; retry after %d s", int(e.RetryAfter.Seconds()))
	}
	return msg
}

// UnreachableError is returned when no answer came, or none that was whole. What
// was asked for may have been done.
type UnreachableError struct {
	URL string
	Err error
}

// Error implements error.
func (e *UnreachableError) Error() string { return fmt.Sprintf("no answer from %s: %v", e.URL, e.Err) }

// Unwrap returns the transport's error.
func (e *UnreachableError) Unwrap() error { return e.Err }

// StatusOf returns the HTTP status an error stands for, 0 if none.
func StatusOf(err error) int {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status
	}
	return 0
}

// Temporary reports whether an error is of trouble that passes.
func Temporary(err error) bool {
	if e, ok := errors.AsType[*UnreachableError](err); ok {
		return !errors.Is(e.Err, context.Canceled) && !errors.Is(e.Err, context.DeadlineExceeded)
	}
	switch StatusOf(err) {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// Bounds of what is read of an answer that is an error.
const (
	maxErrorBody = 64 << 10
	maxErrorText = 200
)

// readError turns an answer into its error and closes it.
func readError(res *http.Response) error {
	defer drain(res.Body)
	out := &Error{Status: res.StatusCode, RetryAfter: retryAfter(res.Header.Get("Retry-After"), time.Now())}
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxErrorBody))
	if err != nil {
		return &UnreachableError{URL: res.Request.URL.Host, Err: err}
	}
	var env api.Envelope
	if json.Unmarshal(raw, &env) == nil && env.Error != nil {
		out.Type, out.Param = env.Error.Type, env.Error.Param
		out.Message, out.RequestID = env.Message, env.RequestID
		return out
	}
	out.Message = strings.TrimSpace(string(raw[:min(len(raw), maxErrorText)]))
	return out
}

// retryAfter reads seconds or a date; what is neither is no wish.
func retryAfter(text string, now time.Time) time.Duration {
	if s, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(s) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
