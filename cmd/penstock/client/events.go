package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/tmaxmax/go-sse"

	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

const (
	// maxEvent bounds one event in bytes: a terminal carries the full output.
	maxEvent = 16 << 20
	// reconnects is how often in a row a stream may fail without a new event.
	reconnects = 8
)

// Tail follows one task's events from after the given id (zero: from the
// first) until its terminal, and calls each with every event once, in order. A
// broken stream is resumed after the last id seen. An error of each ends it.
func (c *Client) Tail(ctx context.Context, id task.ID, after event.ID, each func(event.Event) error) error {
	return c.follow(ctx, &watch{
		seen: map[task.ID]event.ID{id: after},
		open: func(w *watch) request {
			h := http.Header{"Accept": {"text/event-stream"}}
			if last := w.seen[id]; !last.IsZero() {
				h.Set("Last-Event-ID", last.String())
			}
			return request{method: http.MethodGet, base: c.results, path: "/v1/tasks/" + string(id) + "/events", header: h}
		},
		each: each,
	})
}

// TailMany follows many tasks over one connection until each has ended. Events
// of one task come in order, those of different tasks interleave. A broken
// stream is opened again for the tasks that are still open, and what was
// already seen of them is left out.
func (c *Client) TailMany(ctx context.Context, ids []task.ID, each func(event.Event) error) error {
	seen := make(map[task.ID]event.ID, len(ids))
	for _, id := range ids {
		seen[id] = event.ID{}
	}
	return c.follow(ctx, &watch{
		seen: seen,
		open: func(w *watch) request {
			q := url.Values{}
			for id := range w.seen {
				q.Add("task", string(id))
			}
			slices.Sort(q["task"])
			h := http.Header{"Accept": {"text/event-stream"}}
			return request{method: http.MethodGet, base: c.results, path: "/v1/events", query: q, header: h}
		},
		each: each,
	})
}

// watch is one following of one or more tasks. Seen holds the open tasks and
// the last event of each that was handed over.
type watch struct {
	seen map[task.ID]event.ID
	open func(*watch) request
	each func(event.Event) error
}

// errHandler wraps an error of the caller's function, which ends the following.
type errHandler struct{ error }

func (c *Client) follow(ctx context.Context, w *watch) error {
	for failures := 0; len(w.seen) > 0; {
		news, err := c.readOnce(ctx, w)
		if h, ok := errors.AsType[errHandler](err); ok {
			return h.error
		}
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("follow events: %w", context.Cause(ctx))
		case err != nil && !passing(err):
			return err
		case len(w.seen) == 0:
			return nil
		case news:
			failures = 0
		default:
			failures++
		}
		if failures > reconnects {
			return fmt.Errorf("follow events: stream broke %d times without news: %w", failures, err)
		}
		if e := pause(ctx, time.Duration(100+rand.IntN(400))*time.Millisecond<<min(failures, 4)); e != nil {
			return fmt.Errorf("follow events: %w", e)
		}
	}
	return nil
}

// readOnce reads one connection to its end.
func (c *Client) readOnce(ctx context.Context, w *watch) (news bool, err error) {
	res, err := c.open(ctx, w.open(w))
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNoContent { // we have seen the terminal already
		clear(w.seen)
		return true, nil
	}
	for frame, err := range sse.Read(res.Body, &sse.ReadConfig{MaxEventSize: maxEvent}) {
		if err != nil {
			return news, &UnreachableError{URL: c.results, Err: err}
		}
		fresh, err := w.take(frame)
		if err != nil {
			return news, err
		}
		news = news || fresh
		if len(w.seen) == 0 {
			return news, nil
		}
	}
	return news, &UnreachableError{URL: c.results, Err: io.ErrUnexpectedEOF}
}

// take hands one frame over unless it was seen before.
func (w *watch) take(frame sse.Event) (fresh bool, err error) {
	if frame.Type == string(event.Reconnect) || frame.Data == "" {
		return false, nil // the server closes next; we come back
	}
	e, err := DecodeEvent(frame)
	if err != nil {
		return false, err
	}
	last, open := w.seen[e.TaskID]
	if !open || (!last.IsZero() && !last.Less(e.ID)) {
		return false, nil
	}
	w.seen[e.TaskID] = e.ID
	if err := w.each(e); err != nil {
		return true, errHandler{err}
	}
	if task.Status(e.Type).Terminal() {
		delete(w.seen, e.TaskID)
	}
	return true, nil
}

// DecodeEvent reads the event of a frame. The frame's own id and type win over the body's, which
// need not repeat them.
func DecodeEvent(frame sse.Event) (event.Event, error) {
	var e event.Event
	if err := json.Unmarshal([]byte(frame.Data), &e); err != nil {
		return e, fmt.Errorf("decode event: %w", err)
	}
	if e.ID.IsZero() && frame.LastEventID != "" {
		id, err := event.ParseID(frame.LastEventID)
		if err != nil {
			return e, fmt.Errorf("event id %q: %w", frame.LastEventID, err)
		}
		e.ID = id
	}
	if e.Type == "" {
		e.Type = event.Type(frame.Type)
	}
	return e, nil
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
