package attempt

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend"
)

// Bounds of token streams.
const (
	flushBytes  = 1 << 10   // a piece this large goes out at once
	bufferBytes = 256 << 10 // unwritten text of one stream; beyond it the stream ends
	writeLimit  = 5 * time.Second
	retryPause  = 200 * time.Millisecond // after a write that failed for reasons of the store
)

// Streams writes the tokens of all running tries: one goroutine gathers what is
// due of every stream into one pipelined write. Emitting never waits for it.
type Streams struct {
	log   Log
	every time.Duration
	m     *metrics
	wake  chan struct{} // holds one wish

	mu   sync.Mutex
	open map[*Stream]struct{}
}

// NewStreams returns a writer that lets a stream wait at most every between two
// writes; the first piece goes out at once.
func NewStreams(log Log, every time.Duration, m *metrics) *Streams {
	return &Streams{log: log, every: every, m: m, wake: make(chan struct{}, 1), open: map[*Stream]struct{}{}}
}

// Stream is the token stream of one try. Its owner calls Emit in order and then
// Close.
type Stream struct {
	s     *Streams
	task  task.ID
	fence event.Fence

	// Guarded by s.mu.
	seq     uint64
	texts   []piece // coalesced, not yet in an event
	bytes   int     // of texts and sent together
	sent    []event.Event
	doubt   bool // sent may have been written: a refusal of it is no proof of a fence
	last    time.Time
	closing bool
	ended   bool // refused, vanished or overflowed: everything further is dropped
}

type piece struct {
	index int
	text  strings.Builder
}

// Open starts the stream of a try whose claim was written.
func (s *Streams) Open(id task.ID, fence event.Fence) *Stream {
	st := &Stream{s: s, task: id, fence: fence}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[st] = struct{}{}
	return st
}

// Emit takes a piece of the answer. It never blocks.
func (st *Stream) Emit(p backend.Piece) {
	s := st.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.ended || p.Text == "" {
		return
	}
	if st.bytes += len(p.Text); st.bytes > bufferBytes {
		st.end("overflow")
		return
	}
	if n := len(st.texts); n == 0 || st.texts[n-1].index != p.Index {
		st.texts = append(st.texts, piece{index: p.Index})
	}
	st.texts[len(st.texts)-1].text.WriteString(p.Text)
	if st.last.IsZero() || st.bytes >= flushBytes || time.Since(st.last) >= s.every {
		s.nudge()
	}
}

// Close lets the rest go out. It does not wait: the terminal has the full text.
func (st *Stream) Close() {
	s := st.s
	s.mu.Lock()
	defer s.mu.Unlock()
	st.closing = true
	if len(st.texts) == 0 && len(st.sent) == 0 || st.ended {
		delete(s.open, st)
		return
	}
	s.nudge()
}

// end drops the stream; the caller holds the lock.
func (st *Stream) end(reason string) {
	st.ended, st.texts, st.sent, st.bytes = true, nil, nil, 0
	delete(st.s.open, st)
	st.s.m.streamsEnded.WithLabelValues(reason).Inc()
}

func (s *Streams) nudge() {
	select {
	case s.wake <- struct{}{}:
	default: // it will look at everything anyway
	}
}

// Run writes until ctx is done.
func (s *Streams) Run(ctx context.Context) {
	tick := time.NewTicker(max(s.every, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-tick.C:
		}
		if !s.flush(ctx) {
			select {
			case <-ctx.Done():
			case <-time.After(retryPause):
			}
		}
	}
}

// flush writes everything that is due and reports false if the store could not.
func (s *Streams) flush(ctx context.Context) bool {
	due, batch := s.gather()
	if len(batch) == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	errs := s.log.Append(ctx, batch)
	s.mu.Lock()
	defer s.mu.Unlock()
	ok := true
	for i, st := range due {
		ok = st.answered(errs[i]) && ok
	}
	return ok
}

func (s *Streams) gather() ([]*Stream, []Append) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var due []*Stream
	var batch []Append
	for st := range s.open {
		if !st.due(now, s.every) {
			continue
		}
		st.cut(now)
		due = append(due, st)
		batch = append(batch, Append{Task: st.task, Events: st.sent})
	}
	return due, batch
}

func (st *Stream) due(now time.Time, every time.Duration) bool {
	if len(st.sent) > 0 {
		return true // repeat what the store did not take
	}
	return len(st.texts) > 0 && (st.closing || st.last.IsZero() || st.bytes >= flushBytes || now.Sub(st.last) >= every)
}

// cut makes events of what has gathered, unless older ones wait for a repeat:
// those go alone, so that a repeat has the same ids.
func (st *Stream) cut(now time.Time) {
	if len(st.sent) > 0 {
		return
	}
	for i := range st.texts {
		st.seq++
		st.sent = append(st.sent, event.Event{
			ID: event.ID{Fence: st.fence, Seq: st.seq}, Type: event.Delta, TaskID: st.task, At: now.UTC(),
			Text: st.texts[i].text.String(), Index: st.texts[i].index,
		})
	}
	st.texts, st.last = nil, now
}

// answered takes the store's word on what was sent; it reports false when the
// store could not say. The caller holds the lock.
func (st *Stream) answered(err error) bool {
	switch {
	case st.ended:
		return true
	case errors.Is(err, ErrFenced) && !st.doubt:
		st.end("fenced")
		return true
	case errors.Is(err, ErrVanished):
		st.end("vanished")
		return true
	case err != nil && !errors.Is(err, ErrFenced):
		st.doubt = true // it may have been written before the connection broke
		return false
	}
	// Written, or refused as a repeat of what had been written after all. If it
	// was another's fence that refused it, the next write will tell.
	for _, e := range st.sent {
		st.bytes -= len(e.Text)
	}
	st.sent, st.doubt = nil, false
	if st.closing && len(st.texts) == 0 {
		delete(st.s.open, st)
	}
	return true
}
