package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// reconnects is how often in a row a watch may break without news.
const reconnects = 8

// Watch follows one task's events, from after the given id (zero: from the
// first) to its terminal, each once and in order; without any if the terminal
// was seen. A stream that breaks, or that the server ends with `reconnect`, goes
// on after the last event. An error is the last it yields.
//
// What to do with the events is Text's business, if it is the answer that counts.
func (c *Client) Watch(ctx context.Context, id task.ID, after event.ID) iter.Seq2[event.Event, error] {
	return func(yield func(event.Event, error) bool) {
		w := &watching{c: c, seen: map[task.ID]event.ID{id: after}, yield: yield}
		w.open = func() Call {
			ask := streamCall(taskPath(id)+"/events", nil)
			if last := w.seen[id]; !last.IsZero() {
				ask.Header.Set("Last-Event-ID", last.String())
			}
			return ask
		}
		w.run(ctx)
	}
}

// WatchMany follows up to api.MaxWatched tasks over one connection until each
// has ended. Events of one task come in order, those of several interleave.
// Otherwise it is as Watch.
func (c *Client) WatchMany(ctx context.Context, ids []task.ID) iter.Seq2[event.Event, error] {
	return func(yield func(event.Event, error) bool) {
		w := &watching{c: c, seen: make(map[task.ID]event.ID, len(ids)), yield: yield}
		for _, id := range ids {
			w.seen[id] = event.ID{}
		}
		w.open = w.openMany
		w.run(ctx)
	}
}

func streamCall(path string, q url.Values) Call {
	return Call{Method: http.MethodGet, Path: path, Query: q, Read: true, Header: http.Header{"Accept": {"text/event-stream"}}}
}

// watching is one following of one or more tasks.
type watching struct {
	c     *Client
	seen  map[task.ID]event.ID // the open tasks, and the last event of each that was handed over
	open  func() Call
	yield func(event.Event, error) bool

	// Of several tasks: the server's cursor is good for the tasks that were asked
	// for when it was sent.
	cursor string
	asked  []task.ID

	retry time.Duration // that the server asked for before the next connection; 0: none
}

// openMany asks for the same tasks under the server's cursor or, without one,
// for those that are open: what was seen of them is left out below.
func (w *watching) openMany() Call {
	if w.cursor == "" {
		w.asked = slices.Sorted(maps.Keys(w.seen))
	}
	q := url.Values{}
	for _, id := range w.asked {
		q.Add("task", string(id))
	}
	ask := streamCall("/v1/events", q)
	if w.cursor != "" {
		ask.Header.Set("Last-Event-ID", w.cursor)
	}
	return ask
}

// Ways for a connection to end that are no trouble.
var (
	errStopped = errors.New("the caller has enough")
	errAsked   = errors.New("the server asked to reconnect")
)

// run reads connections until every task has ended, the caller has enough, or
// trouble does not pass.
func (w *watching) run(ctx context.Context) {
	for failures := 0; len(w.seen) > 0; {
		news, err := w.connect(ctx)
		switch {
		case errors.Is(err, errStopped), len(w.seen) == 0:
			return
		case ctx.Err() != nil:
			err = fmt.Errorf("watch: %w", context.Cause(ctx))
			w.yield(event.Event{}, err)
			return
		case w.cursor != "" && StatusOf(err) == http.StatusBadRequest:
			w.cursor = "" // of a server that reads it no more: begin without
		case !errors.Is(err, errAsked) && !Temporary(err):
			w.yield(event.Event{}, err)
			return
		}
		if failures++; news || errors.Is(err, errAsked) {
			failures = 0
		}
		if failures > reconnects {
			w.yield(event.Event{}, fmt.Errorf("watch: broke %d times without news: %w", failures, err))
			return
		}
		if e := pause(ctx, w.wait(failures, err)); e != nil {
			w.yield(event.Event{}, fmt.Errorf("watch: %w", e))
			return
		}
	}
}

// wait is the pause before the next connection: what the server asked for, else
// one that grows with the failures.
func (w *watching) wait(failures int, err error) time.Duration {
	if asked := min(w.retry, patience); asked > 0 {
		return asked
	}
	grown := time.Duration(100+rand.IntN(400)) * time.Millisecond << min(failures, 4)
	if e, ok := errors.AsType[*Error](err); ok && e.RetryAfter > 0 {
		return max(grown, min(backoff(0, err), patience))
	}
	return grown
}

// connect reads one connection to its end, which always has an error unless
// every task has ended.
func (w *watching) connect(ctx context.Context) (news bool, err error) {
	w.retry = 0
	ask := w.open()
	res, err := w.c.once(ctx, ask, nil)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNoContent { // all terminals were seen
		clear(w.seen)
		return true, nil
	}
	stream := newFrames(res.Body)
	for f, err := range stream.all() {
		w.retry = stream.retry
		if errors.Is(err, errFrameTooLong) {
			return news, err
		}
		if err != nil {
			return news, &UnreachableError{URL: w.c.results, Err: err}
		}
		fresh, err := w.take(f)
		news = news || fresh
		if err != nil || len(w.seen) == 0 {
			return news, err
		}
	}
	if w.retry = stream.retry; w.retry > 0 {
		return news, errAsked // without an event: in trouble that passes
	}
	return news, &UnreachableError{URL: w.c.results, Err: io.ErrUnexpectedEOF}
}

// take hands one frame over unless it was seen before.
func (w *watching) take(f frame) (fresh bool, err error) {
	if event.Type(f.event) == event.Reconnect {
		return false, errAsked
	}
	if w.asked != nil && f.id != "" {
		w.cursor = f.id
	}
	e, err := w.decode(f)
	if err != nil {
		return false, err
	}
	last, open := w.seen[e.TaskID]
	if !open || (!last.IsZero() && !last.Less(e.ID)) {
		return false, nil
	}
	w.seen[e.TaskID] = e.ID
	if e.Type.Terminal() {
		delete(w.seen, e.TaskID)
	}
	if !w.yield(e, nil) {
		return true, errStopped
	}
	return true, nil
}

// decode reads the event of a frame. Of several tasks the frame's id is a
// cursor; of one it is the event's own, which the body need not repeat.
func (w *watching) decode(f frame) (event.Event, error) {
	var e event.Event
	if err := json.Unmarshal(f.data, &e); err != nil {
		return e, fmt.Errorf("decode event: %w", err)
	}
	if e.ID.IsZero() && f.id != "" && w.asked == nil {
		id, err := event.ParseID(f.id)
		if err != nil {
			return e, fmt.Errorf("event id %q: %w", f.id, err)
		}
		e.ID = id
	}
	if e.Type == "" {
		e.Type = event.Type(f.event)
	}
	return e, nil
}
