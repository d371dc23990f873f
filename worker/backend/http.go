package backend

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/retryafter"
	"github.com/penstock/penstock/schema/fault"
)

// Headers by which an engine over HTTP is told which tasks a call is for, comma
// separated, in the order of the items.
const (
	HeaderTask  = "X-Penstock-Task"
	HeaderFence = "X-Penstock-Fence"
)

// Identify names the tasks of a call in the engine's log, and shows our
// credentials if there are any.
func Identify(req *http.Request, items []Item, key string) {
	ids, fences := make([]string, len(items)), make([]string, len(items))
	for i, it := range items {
		ids[i], fences[i] = string(it.Task.ID), it.Fence.String()
	}
	req.Header.Set("X-Request-Id", ids[0])
	req.Header.Set(HeaderTask, strings.Join(ids, ","))
	req.Header.Set(HeaderFence, strings.Join(fences, ","))
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
}

// Refused classifies an HTTP status that is not 200. The body is counted, never
// shown: it may hold a prompt.
func Refused(name string, status int, h http.Header, size int) error {
	e := &fault.Error{
		Code: fault.Rejected, Backend: name, Status: status,
		Message: fmt.Sprintf("the backend answered %d (%d bytes, not shown)", status, size),
	}
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		e.Code = fault.Unauthorized
	case status == http.StatusTooManyRequests:
		e.Code, e.RetryAfter = fault.Throttled, retryafter.Parse(h, time.Now())
	case status == http.StatusRequestTimeout:
		e.Code = fault.Timeout
	case status == http.StatusNotFound || status == http.StatusMethodNotAllowed || status < 400:
		// The engine lacks the model or the route: our configuration is wrong,
		// and no task should die of that.
		e.Code, e.Class = fault.Unavailable, fault.ClassSystem
	case status == http.StatusNotImplemented: // asking again changes nothing: it stays Rejected
	case status == http.StatusFailedDependency || status >= 500:
		e.Code, e.RetryAfter = fault.Unavailable, retryafter.Parse(h, time.Now())
	}
	return e
}

// Broken classifies a failure of the road: nobody there, or a connection that
// ended too soon.
func Broken(ctx context.Context, name string, err error) error {
	if ctx.Err() != nil {
		return Ended(ctx, name)
	}
	e := &fault.Error{Code: fault.Unavailable, Backend: name, Message: "the connection to the backend broke", Err: err}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		e.Class, e.Message = fault.ClassSystem, "nobody answers at the backend's address"
	}
	return e
}

// Nonsense is an answer that is not what was asked for.
func Nonsense(name string, err error) error {
	return &fault.Error{Code: fault.Unavailable, Backend: name, Message: "the backend's answer does not fit the request", Err: err}
}

// Oversize is an answer beyond the limit.
func Oversize(name string, limit int64) error {
	return &fault.Error{Code: fault.TooLarge, Backend: name, Message: fmt.Sprintf("the backend's answer is larger than %d bytes", limit)}
}

// Silent is the cause of a call that was given up after a time.
func Silent(name string, after time.Duration) error {
	return &fault.Error{Code: fault.Timeout, Backend: name, Message: fmt.Sprintf("the backend said nothing for %s", after)}
}
