package httpapi

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/parting"
	"github.com/penstock/penstock/producer/openai"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
)

const (
	heartbeatDefault = 15 * time.Second
	writeTimeout     = 8 * time.Second // how long a client may take for one event
	pingLine         = ": ping\n"      // a blank line after it, and clients would read an empty event
	doneFrame        = "data: [DONE]\n\n"
	streamLife       = time.Hour // of one that can be resumed, give or take a fifth

	drainSpreadDefault = 5 * time.Second
)

// heartbeat is the longest silence: half of what the client bears.
func (k *call) heartbeat(most time.Duration) time.Duration {
	if k.patience == 0 {
		return most
	}
	return max(time.Millisecond, min(most, k.patience/2))
}

// stream is an answer as it is told. Until its head is sent the call can still
// fail with a status.
type stream struct {
	a       *API
	c       echo.Context
	k       *call
	out     httpserver.StreamWriter
	teller  teller
	started bool
}

// errGone is why nothing more is told: the client does not read.
var errGone = errors.New("the client went away")

// streamAnswer tells the answer as it grows. A drain waits for these streams,
// unless they can be resumed.
func (a *API) streamAnswer(c echo.Context, k *call, t teller) error {
	a.metrics.streams.Inc()
	defer a.metrics.streams.Dec()
	s := &stream{a: a, c: c, k: k, out: httpserver.NewStreamWriter(c, writeTimeout), teller: t}
	ctx, stop := a.lasting(c.Request().Context(), k)
	defer stop()
	return s.finish(s.run(ctx))
}

// lasting ends a stream that can be resumed when the server goes away.
func (a *API) lasting(ctx context.Context, k *call) (context.Context, func()) {
	if !k.resumes {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	unschedule := parting.Terms{Lifetime: streamLife, Draining: a.d.Drain, Spread: a.d.DrainSpread}.Schedule(cancel)
	return ctx, func() { unschedule(); cancel(nil) }
}

// run tells events until the end. Its error says why there is none.
func (s *stream) run(ctx context.Context) error {
	events, err := s.a.d.WatchFunc(ctx, s.k.id)
	if err != nil {
		return err
	}
	defer events.Close()
	if err := s.begin(); err != nil {
		return err
	}
	beat := time.NewTicker(s.k.heartbeat(s.a.d.Heartbeat))
	defer beat.Stop()
	for {
		it, err := events.Poll(ctx, beat.C)
		switch {
		case errors.Is(err, follow.ErrIdle):
			err = s.send([]byte(pingLine))
		case err == nil && it.ID.Fence.Terminal():
			return s.end(ctx, it)
		case err == nil:
			err = s.event(it)
		}
		if err != nil {
			return err
		}
	}
}

// begin tells what comes before all events. A response has no failure but those
// that its events tell, so its head goes first.
func (s *stream) begin() error {
	if s.k.response != nil {
		if err := s.open(); err != nil {
			return err
		}
	}
	return s.send(s.teller.begin()...)
}

// open sends the head, if it was not.
func (s *stream) open() error {
	if s.started {
		return nil
	}
	s.started = true
	s.k.took(s.c)
	if err := httpserver.BeginStream(s.c); err != nil {
		return errors.Join(errGone, err)
	}
	return nil
}

// send writes frames one by one, after the head.
func (s *stream) send(frames ...[]byte) error {
	for _, frame := range frames {
		if err := s.open(); err != nil {
			return err
		}
		if err := s.out.Send(frame); err != nil {
			return errors.Join(errGone, err)
		}
	}
	return nil
}

func (s *stream) event(it follow.Item) error {
	e, err := it.Event()
	if err != nil {
		return err
	}
	frames, err := s.teller.tell(e)
	return cmp.Or(s.send(frames...), err)
}

// end tells the end of the task.
func (s *stream) end(ctx context.Context, it follow.Item) error {
	entry, release, err := s.a.d.Results.Event(ctx, it.Entry)
	if err != nil {
		return claimcheck.Fault(err)
	}
	defer release()
	e, err := entry.Event()
	if err != nil || e.Result == nil {
		return errors.Join(err, errors.New("the end of the task has no result"))
	}
	frames, err := s.teller.end(api.OfTerminal(e.Result, it.ID.Fence.Generation()))
	return cmp.Or(s.send(frames...), err)
}

// ended is a task that did not succeed, as an error.
type ended struct{ openai.Failure }

// Error implements error.
func (e *ended) Error() string { return e.Message }

// finish ends the answer so that nobody takes a part of it for the whole: with a
// status, an error as its last event, or a connection that is cut.
func (s *stream) finish(err error) error {
	ctx := s.c.Request().Context()
	if err != nil && (errors.Is(err, errGone) || ctx.Err() != nil) {
		s.a.left(ctx, s.k)
		return s.abort(ctx)
	}
	failure, outcome := s.failure(err)
	switch {
	case err == nil:
		s.a.settled(ctx, s.k, outcomeAnswered)
		return nil
	case s.k.resumes && s.started && outcome != outcomeInterrupted || errors.Is(err, follow.ErrSlow) && s.k.resumes:
		s.a.settled(ctx, s.k, outcomeFailed)
		return s.abort(ctx) // its client comes back for the rest
	case failure.Status == 0 && !s.started: // may pass: a retry finds the task
		s.a.metrics.calls.WithLabelValues(outcomeFailed).Inc()
		s.a.leave(ctx, s.k)
		return err
	case failure.Status == 0:
		s.a.d.Log.WarnContext(ctx, "stream of an answer ends early", "task_id", string(s.k.id), "err", err)
		failure = openai.NewFailure(http.StatusServiceUnavailable, string(fault.Unavailable),
			"the end of the answer cannot be told just now; ask for it with GET /v1/tasks/"+string(s.k.id), "")
	}
	s.a.settled(ctx, s.k, outcome)
	if !s.started {
		s.k.took(s.c)
		return final(s.c, failure)
	}
	if s.send(s.teller.last(failure, err)) != nil {
		return s.abort(ctx)
	}
	return nil
}

// failure is what is told of an error that asking again does not mend; without
// a status if it may pass.
func (s *stream) failure(err error) (f openai.Failure, outcome string) {
	e := new(ended)
	switch {
	case errors.As(err, &e):
		return e.Failure, outcomeFailed
	case errors.Is(err, openai.ErrInterrupted), errors.Is(err, follow.ErrSlow):
		return openai.Interrupted(s.k.id), outcomeInterrupted
	case errors.Is(err, openai.ErrShape):
		return unreadable(s.k.id), outcomeFailed
	case errors.Is(err, io.EOF): // the task has ended, and its end is dropped
		return expired(), outcomeFailed
	}
	return openai.Failure{}, outcomeFailed
}

// abort ends a call that nobody listens to. What has begun is cut: an end that
// looks like one would be taken for the end of the answer.
func (s *stream) abort(ctx context.Context) error {
	if s.started {
		panic(http.ErrAbortHandler)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return errGone
}
