package tasktopic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/schema/wire"
)

// Read is one record with its place and time.
type Read struct {
	Topic     string
	Partition int32
	Offset    int64
	Time      time.Time
	Record    wire.Record
}

// Replay reads topics from their starts to their ends, and waits there for more,
// without a consumer group: who replays keeps a state in memory that is made of
// all of it, and commits nothing. One goroutine uses it.
type Replay struct {
	cl     *kgo.Client
	adm    *kadm.Client
	topics []string
	ahead  map[place]int64 // end at the start, of partitions not read that far yet
	begun  bool
}

type place struct {
	topic     string
	partition int32
}

// NewReplay returns a replay with a client of its own. It does no I/O.
func NewReplay(c kafkaclient.Config, log *slog.Logger, topics ...string) (*Replay, error) {
	cl, err := kafkaclient.New(c, log, kafkaclient.ReaderOpts(kgo.NewOffset().AtStart(), topics...)...)
	if err != nil {
		return nil, err
	}
	return &Replay{cl: cl, adm: kadm.NewClient(cl), topics: topics, ahead: map[place]int64{}}, nil
}

// Close closes the client.
func (r *Replay) Close() { r.cl.Close() }

// replayPoll bounds the records of one Poll.
const replayPoll = 5000

// Poll waits for records, each partition's in order. CaughtUp is true once
// everything that was there at the first Poll has been handed out, and from then
// on. A cut connection is told as an error only if it brought nothing.
func (r *Replay) Poll(ctx context.Context) (_ []Read, caughtUp bool, err error) {
	if !r.begun {
		if err := r.begin(ctx); err != nil {
			return nil, false, err
		}
		r.begun = true
		if len(r.ahead) == 0 {
			return nil, true, nil
		}
	}
	fetches := r.cl.PollRecords(ctx, replayPoll)
	if ctx.Err() != nil {
		return nil, false, context.Cause(ctx)
	}
	var errs []error
	fetches.EachError(func(t string, p int32, err error) {
		errs = append(errs, fmt.Errorf("read %s/%d: %w", t, p, err))
	})
	out := make([]Read, 0, fetches.NumRecords())
	fetches.EachRecord(func(rec *kgo.Record) { out = append(out, r.take(rec)) })
	if len(out) == 0 && len(errs) > 0 {
		return nil, false, errors.Join(errs...)
	}
	return out, len(r.ahead) == 0, nil
}

func (r *Replay) take(rec *kgo.Record) Read {
	at := place{rec.Topic, rec.Partition}
	if end, waiting := r.ahead[at]; waiting && rec.Offset+1 >= end {
		delete(r.ahead, at)
	}
	return Read{rec.Topic, rec.Partition, rec.Offset, rec.Timestamp, FromKgo(rec)}
}

// begin notes where the partitions end now.
func (r *Replay) begin(ctx context.Context) error {
	starts, err := r.adm.ListStartOffsets(ctx, r.topics...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return fmt.Errorf("list start offsets: %w", err)
	}
	ends, err := r.adm.ListEndOffsets(ctx, r.topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("list end offsets: %w", err)
	}
	ends.Each(func(end kadm.ListedOffset) {
		if start, ok := starts.Lookup(end.Topic, end.Partition); ok && start.Offset < end.Offset {
			r.ahead[place{end.Topic, end.Partition}] = end.Offset
		}
	})
	return nil
}
