package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/producer/openai"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

const (
	// longestWait is above the deadline that a task of class interactive has, and
	// above what its end may take to come here.
	longestWait = api.InteractiveLimit + 30*time.Second
	// answerLead is how long before its client's patience ends a call is
	// answered, at most: a client that gives up first retries.
	answerLead = 500 * time.Millisecond
)

// wait is how long the call waits for its task.
func (k *call) wait() time.Duration {
	if k.patience == 0 {
		return longestWait
	}
	return min(longestWait, k.patience-min(answerLead, k.patience/10))
}

// wholeAnswer waits for the task's end and answers with it.
func (a *API) wholeAnswer(c echo.Context, k *call) error {
	ctx := c.Request().Context()
	view, release, err := a.awaitEnd(ctx, k)
	if err != nil {
		return a.unanswered(c, k, err)
	}
	defer release()
	k.took(c)
	if openai.Failed(view.Status, view.Output, view.Error) {
		a.settled(ctx, k, outcomeFailed)
		return final(c, openai.FailureOf(view.Status, view.Error))
	}
	body, err := k.answer(view)
	if err != nil {
		a.settled(ctx, k, outcomeFailed)
		return final(c, unreadable(k.id))
	}
	if err := c.Blob(http.StatusOK, echo.MIMEApplicationJSON, body); err != nil {
		a.left(ctx, k)
		return err
	}
	a.settled(ctx, k, outcomeAnswered)
	return nil
}

// answer is the body for a task that has succeeded.
func (k *call) answer(view api.Task) ([]byte, error) {
	if k.response != nil {
		return k.response.Body(view), nil
	}
	return openai.Answer(k.head(), k.Base64, view.Output, view.Usage)
}

// awaitEnd returns the task as it ended, with its output. The error is that of
// the request's context if the client went away, and one that says so when the
// time is up.
func (a *API) awaitEnd(ctx context.Context, k *call) (api.Task, func(), error) {
	waiting, stop := context.WithTimeout(ctx, k.wait())
	defer stop()
	t, generation, err := a.d.Waiter.Wait(waiting, k.id)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return api.Task{}, nil, ctx.Err()
	case waiting.Err() != nil:
		return api.Task{}, nil, errTooLate
	default:
		return api.Task{}, nil, err
	}
	view, release, err := a.d.Results.Task(ctx, api.OfTerminal(t, generation))
	if err != nil {
		return api.Task{}, nil, claimcheck.Fault(err)
	}
	return view, release, nil
}

// errTooLate is why a call is answered before its task has ended.
var errTooLate error = fault.New(fault.Timeout, "the task has not ended in time and goes on")

// unanswered ends a call whose task has not ended as far as we know.
func (a *API) unanswered(c echo.Context, k *call, err error) error {
	ctx := c.Request().Context()
	k.took(c)
	switch {
	case ctx.Err() != nil:
		a.left(ctx, k)
		return ctx.Err()
	case errors.Is(err, errTooLate):
		a.settled(ctx, k, outcomeLate)
		return final(c, openai.NewFailure(http.StatusGatewayTimeout, string(fault.Timeout),
			fmt.Sprintf("the task has not ended in time and goes on; ask for it with GET /v1/tasks/%s", k.id), ""))
	case errors.Is(err, follow.ErrExpired):
		a.settled(ctx, k, outcomeFailed)
		return final(c, expired())
	default:
		a.leave(context.WithoutCancel(ctx), k)
		a.metrics.calls.WithLabelValues(outcomeFailed).Inc()
		return err
	}
}

// final answers with a failure that a retry would only meet again.
func final(c echo.Context, f openai.Failure) error {
	c.Response().Header().Set(headerShouldRetry, "false")
	e := &httpserver.Error{Status: f.Status, Message: f.Message}
	if f.Code != nil {
		e.Code = *f.Code
	}
	return e
}

// expired is the answer to a call that repeats one of long ago.
func expired() openai.Failure {
	return openai.NewFailure(http.StatusGone, string(fault.Gone), "the task ended long ago and its result is dropped; ask anew with another key", "")
}

// unreadable is an output that is not of the protocol: an engine's fault.
func unreadable(id task.ID) openai.Failure {
	return openai.NewFailure(http.StatusInternalServerError, string(fault.Internal),
		"the engine's answer is not of the protocol's shape; see GET /v1/tasks/"+string(id), "")
}
