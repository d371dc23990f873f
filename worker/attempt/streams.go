package attempt

import (
	"context"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/eventlog"
)

// Bounds of token streams.
const (
	flushBytes  = 1 << 10   // a piece this large goes out at once
	bufferBytes = 256 << 10 // unwritten text of one stream, beyond which it ends; and written text that is remembered
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
	lost []*Stream // whose ownership is to be proven
}

// NewStreams returns a writer that lets a stream wait at most every between two
// writes; the first piece goes out at once.
func NewStreams(log Log, every time.Duration, m *metrics) *Streams {
	return &Streams{log: log, every: every, m: m, wake: make(chan struct{}, 1), open: map[*Stream]struct{}{}}
}

// Open starts the stream of a try whose claim was written. Owned is Try.Owned.
func (s *Streams) Open(claim eventlog.Claim, owned func(context.Context) error) *Stream {
	st := &Stream{s: s, claim: claim, owned: owned, over: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[st] = struct{}{}
	return st
}

func (s *Streams) nudge() {
	select {
	case s.wake <- struct{}{}:
	default: // it will look at everything anyway
	}
}

// Run writes until ctx is done.
func (s *Streams) Run(ctx context.Context) {
	var proofs sync.WaitGroup
	defer proofs.Wait()
	timer := time.NewTimer(s.rest(time.Now()))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-timer.C:
		}
		ok := s.flush(ctx)
		for _, st := range s.takeLost() {
			proofs.Go(func() { s.prove(ctx, st) }) // beside the writing: other streams go on
		}
		if !ok {
			select {
			case <-ctx.Done():
			case <-time.After(retryPause):
			}
		}
		timer.Reset(s.rest(time.Now()))
	}
}

// rest is how long to wait at most before looking again: until the first stream
// may be due. A tick of its own would let a piece wait for the second one, up to
// twice as long as it should.
func (s *Streams) rest(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := max(s.every, time.Millisecond)
	for st := range s.open {
		if left := st.last.Add(s.every).Sub(now); left > 0 {
			rest = min(rest, left)
		}
	}
	return rest
}

func (s *Streams) takeLost() []*Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	lost := s.lost
	s.lost = nil
	return lost
}

// write is what one flush sends.
type write struct {
	due    []*Stream
	batch  []eventlog.Append // in the order of due
	claims []eventlog.Claim  // of streams that are begun again
	begun  []int             // their places in due
}

// flush writes everything that is due and reports false if the store could not.
func (s *Streams) flush(ctx context.Context) bool {
	w := s.gather()
	if len(w.batch) == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	var grants []eventlog.Grant
	if len(w.claims) > 0 {
		grants = s.log.ClaimAll(ctx, w.claims)
	}
	errs := s.log.Append(ctx, w.batch)
	for n, i := range w.begun { // without its claim the append says only that there is none
		if grants[n].Err != nil {
			errs[i] = grants[n].Err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ok := true
	for i, st := range w.due {
		ok = st.answered(errs[i]) && ok
	}
	return ok
}

func (s *Streams) gather() (w write) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, room := time.Now(), replayMost
	for st := range s.open {
		if !st.due(now, s.every) || st.outdated(now) {
			continue
		}
		st.cut(now)
		events := st.pending
		if st.loss.stage == proven {
			if room -= st.sent.bytes; room < 0 && len(w.claims) > 0 {
				s.nudge() // the next write has room for it
				continue
			}
			var claim eventlog.Claim
			claim, events = st.again(now)
			w.claims, w.begun = append(w.claims, claim), append(w.begun, len(w.due))
		}
		w.due = append(w.due, st)
		w.batch = append(w.batch, eventlog.Append{ID: st.claim.ID, Events: events})
	}
	return w
}
