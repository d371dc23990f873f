package follow

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// Cursor is a watcher of one task that gets events decoded.
type Cursor struct{ s *Stream }

// Follow watches one task from after an event on; with the zero id the first
// event is `queued`. The cursor must be closed.
func (f *Follower) Follow(ctx context.Context, id task.ID, after event.ID) (*Cursor, error) {
	s, err := f.FollowMany(ctx, []Watch{{ID: id, After: after}})
	if err != nil {
		return nil, err
	}
	return &Cursor{s}, nil
}

// Next waits for the next event. It returns io.EOF after the terminal, and
// ErrSlow when the cursor is cut: whoever resumes after the last event misses
// nothing.
func (c *Cursor) Next(ctx context.Context) (event.Event, error) {
	it, err := c.s.Next(ctx)
	if err != nil {
		return event.Event{}, err
	}
	return it.Event()
}

// Close ends the watch.
func (c *Cursor) Close() { c.s.Close() }

// Wait waits for the end of a task and returns the winning terminal and its
// generation. Ctx bounds the wait: its error is returned if nothing has ended
// by then. A result past its time to live is ErrExpired.
func (f *Follower) Wait(ctx context.Context, id task.ID) (*terminal.Terminal, uint8, error) {
	s := &Stream{f: f, wake: make(chan struct{}, 1)}
	defer s.Close()
	s.start([]*watch{{id: id, stream: s, ends: true}})
	it, err := s.Next(ctx)
	if errors.Is(err, io.EOF) {
		err = ErrExpired
	}
	if err != nil {
		return nil, 0, fmt.Errorf("wait for task %s: %w", id, err)
	}
	e, err := it.Event()
	if err != nil {
		return nil, 0, err
	}
	if e.Result == nil {
		return nil, 0, fmt.Errorf("wait for task %s: event %s has no result", id, it.ID)
	}
	return e.Result, it.ID.Fence.Generation(), nil
}
