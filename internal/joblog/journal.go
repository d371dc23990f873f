package joblog

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/tasktopic"
)

// Entry is what one owner of jobs writes into the log and reads from it.
type Entry interface {
	// Encode returns the record of the entry, written at a time: the id of its job
	// is the key.
	Encode(at time.Time) (key string, value []byte, err error)
	// String names the entry in errors: its type and its job.
	String() string
}

// Publisher writes the log; tasktopic.Publisher is one.
type Publisher interface {
	Control(ctx context.Context, key string, value []byte) (tasktopic.Ack, error)
	// BrokerNow is the present by the clock that the log's times are compared with.
	BrokerNow() time.Time
}

var _ Publisher = (*tasktopic.Publisher)(nil)

// JournalParams are the parts of a Journal. All are required.
type JournalParams[E Entry] struct {
	Publisher   Publisher
	Mark        *Mark // of the fold that ApplyFunc writes
	Log         *slog.Logger
	Undecodable prometheus.Counter

	// DecodeFunc reads an entry; the second result is false for one of somebody
	// else, which is no error.
	DecodeFunc func(value []byte) (e E, ours bool, err error)
	// ApplyFunc folds an entry. Heard is when its author was alive, by our clock.
	ApplyFunc func(e E, heard time.Time)
}

// Journal is one process's end of the log, for the entries of one owner. Say may
// be called by any goroutine; Fold and CatchUp belong to the one that reads.
type Journal[E Entry] struct {
	p        JournalParams[E]
	caughtUp atomic.Bool
	ready    chan struct{} // closed once caughtUp
}

// NewJournal returns the journal of a process that has read nothing yet.
func NewJournal[E Entry](p JournalParams[E]) *Journal[E] {
	return &Journal[E]{p: p, ready: make(chan struct{})}
}

// Say writes one entry and returns its offset.
func (j *Journal[E]) Say(ctx context.Context, e E) (offset int64, err error) {
	key, value, err := e.Encode(j.p.Publisher.BrokerNow().UTC())
	if err != nil {
		return 0, err
	}
	ack, err := j.p.Publisher.Control(ctx, key, value)
	if err != nil {
		return 0, fmt.Errorf("write %s: %w", e, err)
	}
	return ack.Offset, nil
}

// Fold applies what was read, in the order of the log, and then moves the mark.
func (j *Journal[E]) Fold(records []tasktopic.Read) {
	for _, r := range records {
		j.take(r)
	}
	if n := len(records); n > 0 {
		j.p.Mark.Advance(records[n-1].Offset + 1)
	}
}

func (j *Journal[E]) take(r tasktopic.Read) {
	e, ours, err := j.p.DecodeFunc(r.Record.Value)
	if err != nil {
		j.p.Undecodable.Inc()
		j.p.Log.Warn("control entry ignored", "offset", r.Offset, "err", err)
	}
	if err != nil || !ours {
		return
	}
	heard := r.Time
	if j.CaughtUp() {
		heard = time.Now() // live: no clock but ours
	}
	j.p.ApplyFunc(e, heard)
}

// CatchUp notes that all is folded that was there when the reading began.
func (j *Journal[E]) CatchUp() {
	if j.caughtUp.CompareAndSwap(false, true) {
		close(j.ready)
	}
}

// CaughtUp reports whether CatchUp was called.
func (j *Journal[E]) CaughtUp() bool { return j.caughtUp.Load() }

// Ready is closed by CatchUp.
func (j *Journal[E]) Ready() <-chan struct{} { return j.ready }
