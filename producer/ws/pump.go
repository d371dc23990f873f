package ws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/coder/websocket"

	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// ask is what the pump, which owns the stream, is to do with a watch.
type ask struct {
	op    api.Op // OpSubscribe, OpUnsubscribe, or OpSubmit: a watch that needs no answer
	ref   string
	watch follow.Watch
}

// want hands an ask to the pump. It waits while too many wait, and drops it once
// the socket ends.
func (s *socket) want(ctx context.Context, a ask) {
	select {
	case s.asked <- a:
		s.stream.Nudge()
	case <-ctx.Done():
	}
}

// pump sends the events of what is watched until ctx ends.
func (s *socket) pump(ctx context.Context) error {
	watched := 0
	var buf []byte
	for {
		it, err := s.stream.Next(ctx)
		switch {
		case errors.Is(err, follow.ErrIdle):
			watched = s.obey(watched)
			continue
		case err != nil:
			return err
		}
		if it.ID.IsZero() || it.ID.Fence.Terminal() {
			watched--
		}
		if buf, err = s.event(ctx, it, buf); err != nil {
			return err
		}
	}
}

// obey does what was asked for since the last look.
func (s *socket) obey(watched int) int {
	for {
		select {
		case a := <-s.asked:
			watched = s.change(a, watched)
		default:
			return watched
		}
	}
}

// change takes a watch up or ends it, and answers before the first event of it.
func (s *socket) change(a ask, watched int) int {
	id := a.watch.ID
	switch {
	case a.op == api.OpUnsubscribe:
		if s.stream.Remove(id) {
			watched--
		}
		s.reply(api.SocketReply{Op: api.OpUnsubscribed, Ref: a.ref, TaskID: id})
	case watched >= api.MaxWatched:
		s.fail(a.ref, id, fault.New(fault.Throttled, "more than %d tasks are watched: the task goes on; unsubscribe from some, or connect again beside this", api.MaxWatched))
	case s.stream.Add(a.watch):
		watched++
		if a.op == api.OpSubscribe {
			s.reply(api.SocketReply{Op: api.OpSubscribed, Ref: a.ref, TaskID: id})
		}
	case a.op == api.OpSubscribe:
		s.fail(a.ref, id, fault.New(fault.Malformed, "the task is watched already: unsubscribe first to have its events again"))
	}
	return watched
}

// event sends one item, and returns the buffer to use for the next.
func (s *socket) event(ctx context.Context, it follow.Item, buf []byte) ([]byte, error) {
	if it.ID.IsZero() {
		return buf, s.send(api.SocketReply{Op: api.OpUnsubscribed, TaskID: it.Task, Reason: "ended"})
	}
	e, release, err := s.a.d.Results.Event(ctx, it.Entry)
	if err != nil { // of this one task: the others go on
		s.fail("", it.Task, claimcheck.Fault(err))
		return buf, nil
	}
	defer release()
	buf = append(buf[:0], `{"op":"event","event":`...)
	buf = append(e.AppendJSON(buf), '}')
	if err := s.write(buf); err != nil {
		return buf, err
	}
	s.a.metrics.events.Inc()
	if cap(buf) > keepBuffer {
		buf = nil
	}
	return buf, nil
}

const (
	// keepBuffer is the largest buffer kept between events.
	keepBuffer = 64 << 10
	// slowest is the pace, in bytes a second, at which a client must take what is
	// larger than one event of tokens.
	slowest = 1 << 20
)

// reply sends a message to a client that may be gone: then the socket ends.
func (s *socket) reply(m api.SocketReply) {
	if err := s.send(m); err != nil {
		s.stop(err)
	}
}

func (s *socket) send(m api.SocketReply) error {
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode %s: %w", m.Op, err)
	}
	return s.write(text)
}

// write sends one message. Any goroutine may; messages are never mixed. What is
// under way when the socket is to end is still sent.
func (s *socket) write(text []byte) error {
	limit := s.a.p.WriteTimeout + time.Duration(len(text)/slowest)*time.Second
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err := s.conn.Write(ctx, websocket.MessageText, text)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		s.cut.Store(true)
		return errors.Join(errCut, err)
	default:
		return errors.Join(errGone, err)
	}
}

// fail tells of an error. Task may be empty.
func (s *socket) fail(ref string, id task.ID, err error) {
	e := errorOf(err)
	if e.Status >= 500 {
		s.a.d.Log.Warn("request on a socket failed", "err", err, "request_id", s.request)
	}
	s.a.metrics.errors.WithLabelValues(e.Code).Inc()
	s.reply(api.SocketReply{
		Op: api.OpError, Ref: ref, TaskID: id, RetryMS: e.RetryAfter.Milliseconds(),
		Error: &api.Error{Type: fault.Code(e.Code), Message: e.Message, Param: e.Param},
	})
}
