package projection

import (
	"context"
	"fmt"

	"github.com/penstock/penstock/internal/redisclient"
)

// Bounds of one script call, during which Redis serves nobody else, and of the
// calls in one round trip.
const (
	callRecords = 128
	callBytes   = 4 << 20
	callsAtOnce = 2
)

// GapError says that a batch does not continue where the partition stands.
type GapError struct {
	Log       string
	Partition int32
	Next      int64 // the offset to continue at
	Missing   bool  // Redis knows nothing of the partition: rebuild it
}

// Error implements error.
func (e *GapError) Error() string {
	if e.Missing {
		return fmt.Sprintf("%s partition %d has no projection", e.Log, e.Partition)
	}
	return fmt.Sprintf("%s partition %d is applied up to offset %d only", e.Log, e.Partition, e.Next)
}

// Fold is how the records of a topic take effect.
type Fold[R any] struct {
	// Script has the position's key as KEYS[1], the offset at which its batch
	// continues as ARGV[1] and the offset behind it as ARGV[2]. It answers
	// {outcome, next}: 0 applied, and the position moved unless it was further; 1 a
	// gap; 2 the position is unknown. With 1 and 2 nothing changes.
	Script redisclient.Script
	// Begin adds to a new call what all its records share. Nil: nothing.
	Begin func(call *redisclient.Call, partition int32)
	// Add appends one record's keys and arguments and returns its size in bytes.
	Add func(call *redisclient.Call, partition int32, r R) (bytes int, err error)
	// Offset is a record's place in its partition.
	Offset func(r R) int64
}

// Apply folds records of one partition, which must be in the order of the log,
// atomically and idempotently. Large batches take several scripts, each of them
// whole.
//
// From is the offset this batch continues at, upTo the offset after the last
// record fetched; records between that could not be decoded are just missing
// in recs. If the partition stands before from, or nowhere, Apply changes
// nothing more and returns a *GapError. The script skips records before the
// partition's position: a replay and a zombie are harmless.
func Apply[R any](ctx context.Context, s *Positions, f Fold[R], partition int32, from, upTo int64, recs []R) error {
	for first := true; first || len(recs) > 0; first = false {
		calls := make([]redisclient.Call, 0, callsAtOnce)
		for bytes := 0; len(calls) == 0 || len(calls) < callsAtOnce && len(recs) > 0 && bytes < callBytes; {
			call, n, size, err := f.call(s.key(partition), partition, from, recs)
			if err != nil {
				return err
			}
			end := upTo
			if n < len(recs) {
				end = f.Offset(recs[n])
			}
			call.Args[1] = end
			calls = append(calls, call)
			from, recs, bytes = end, recs[n:], bytes+size
		}
		if err := s.run(ctx, f.Script, partition, calls); err != nil {
			return err
		}
	}
	return nil
}

// call builds the call for as many records as fit, and says how many and how
// large they are.
func (f Fold[R]) call(key string, partition int32, from int64, recs []R) (call redisclient.Call, n, bytes int, err error) {
	most := min(len(recs), callRecords)
	call.Keys = append(make([]string, 0, 2+4*most), key)
	call.Args = append(make([]any, 0, 4+12*most), from, int64(0))
	if f.Begin != nil {
		f.Begin(&call, partition)
	}
	for n < most && bytes < callBytes {
		size, err := f.Add(&call, partition, recs[n])
		if err != nil {
			return call, 0, 0, err
		}
		bytes += size
		n++
	}
	return call, n, bytes, nil
}

// run runs scripts that continue each other. One that fails makes a gap of
// those behind it, which then change nothing.
func (s *Positions) run(ctx context.Context, script redisclient.Script, partition int32, calls []redisclient.Call) error {
	for _, cmd := range script.RunAll(ctx, s.rdb, calls) {
		reply, err := cmd.Int64Slice()
		if err != nil {
			return fmt.Errorf("apply %s partition %d: %w", s.log, partition, err)
		}
		if len(reply) != 2 {
			return fmt.Errorf("apply %s partition %d: script answered %v", s.log, partition, reply)
		}
		if reply[0] != 0 {
			return &GapError{Log: s.log, Partition: partition, Next: reply[1], Missing: reply[0] == 2}
		}
	}
	return nil
}
