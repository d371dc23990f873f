package taskstore

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/terminal"
)

//go:embed lua/apply.lua
var applySource string

var applyScript = redisclient.NewScript(applySource)

// Bounds of one script call, during which Redis serves nobody else, and of the
// calls in one round trip.
const (
	applyRecords = 128
	applyBytes   = 4 << 20
	applyScripts = 2
)

// minKeep is how long a result is kept that is older than its time to live
// when it is applied: later records of its task must still meet it.
const minKeep = time.Minute

// Applied is one decoded record of a results partition.
type Applied struct {
	Terminal *terminal.Terminal
	Offset   int64
}

// GapError says that a batch does not continue where the partition stands.
type GapError struct {
	Partition int32
	Next      int64 // the offset to continue at
	Missing   bool  // Redis knows nothing of the partition: rebuild it
}

// Error implements error.
func (e *GapError) Error() string {
	if e.Missing {
		return fmt.Sprintf("results partition %d has no projection", e.Partition)
	}
	return fmt.Sprintf("results partition %d is applied up to offset %d only", e.Partition, e.Next)
}

// Apply folds records of one partition, which must be in the order of the log,
// into the projection: task, event stream, live channel, tenant index and the
// partition's position, atomically and idempotently. Large batches take
// several scripts, each of them whole.
//
// from is the offset this batch continues at, upTo the offset after the last
// record fetched; records between that could not be decoded are just missing
// in recs. If the partition stands before from, or nowhere, Apply changes
// nothing more and returns a *GapError. Records before its position are
// skipped: a replay and a zombie are harmless.
func (s *Store) Apply(ctx context.Context, partition int32, from, upTo int64, recs []Applied) error {
	for first := true; first || len(recs) > 0; first = false {
		calls := make([]redisclient.Call, 0, applyScripts)
		for bytes := 0; len(calls) == 0 || len(calls) < applyScripts && len(recs) > 0 && bytes < applyBytes; {
			call, n, size, err := s.applyCall(partition, from, recs)
			if err != nil {
				return err
			}
			end := upTo
			if n < len(recs) {
				end = recs[n].Offset
			}
			call.Args[1] = end
			calls = append(calls, call)
			from, recs, bytes = end, recs[n:], bytes+size
		}
		if err := s.applyCalls(ctx, partition, calls); err != nil {
			return err
		}
	}
	return nil
}

// applyCalls runs scripts that continue each other. One that fails makes a gap
// of those behind it, which then change nothing.
func (s *Store) applyCalls(ctx context.Context, partition int32, calls []redisclient.Call) error {
	for _, cmd := range applyScript.RunAll(ctx, s.rdb, calls) {
		reply, err := cmd.Int64Slice()
		if err != nil {
			return fmt.Errorf("apply results partition %d: %w", partition, err)
		}
		if len(reply) != 2 {
			return fmt.Errorf("apply results partition %d: script answered %v", partition, reply)
		}
		if reply[0] != 0 {
			return &GapError{Partition: partition, Next: reply[1], Missing: reply[0] == 2}
		}
	}
	return nil
}

// applyCall builds the call for as many records as fit, and says how many and
// how large their JSON is.
func (s *Store) applyCall(partition int32, from int64, recs []Applied) (call redisclient.Call, n, bytes int, err error) {
	now := time.Now()
	call.Keys = append(make([]string, 0, 2+4*min(len(recs), applyRecords)), rediskey.Projection(partition), rediskey.Due(partition))
	call.Args = append(make([]any, 0, 4+12*min(len(recs), applyRecords)),
		from, int64(0), seconds(s.p.MaxAge+s.p.TTL), now.Add(-s.p.MaxAge-s.p.TTL).UnixMilli())
	for n < len(recs) && n < applyRecords && bytes < applyBytes {
		json, err := s.addRecord(&call, partition, recs[n], now)
		if err != nil {
			return call, 0, 0, err
		}
		bytes += json
		n++
	}
	return call, n, bytes, nil
}

// addRecord appends one record's keys and arguments and returns the size of
// its JSON.
func (s *Store) addRecord(call *redisclient.Call, partition int32, r Applied, now time.Time) (int, error) {
	t := r.Terminal
	status, generation, end := string(t.Status), "", ""
	if t.Generation != nil {
		generation = strconv.Itoa(int(*t.Generation))
	}
	var value []byte
	switch {
	case s.p.Gone(t.TaskID, now):
		status = "" // advances the position and nothing else
	case t.Status == terminal.Reopened:
		if t.Generation != nil {
			end = event.TerminalID(*t.Generation).String()
		}
	default:
		var err error
		if value, err = json.Marshal(t); err != nil {
			return 0, fmt.Errorf("encode terminal at offset %d of results partition %d: %w", r.Offset, partition, err)
		}
	}
	call.Keys = append(call.Keys, rediskey.Task(partition, t.TaskID), rediskey.Result(partition, t.TaskID), rediskey.Events(partition, t.TaskID), rediskey.Tenant(partition, t.Tenant))
	call.Args = append(call.Args, r.Offset, string(t.TaskID), status, generation, t.RedriveJob, end, value,
		t.EndedAt.UTC().Format(time.RFC3339Nano), createdAt(t).UnixMilli(), s.keep(t, now), rediskey.Live(partition, t.TaskID), t.Tenant)
	return len(value), nil
}

// keep is how many seconds a result is kept from now on, if it ended at its
// own word.
func (s *Store) keep(t *terminal.Terminal, now time.Time) int64 {
	left := t.EndedAt.Add(s.p.TTL).Sub(now)
	return seconds(min(max(left, minKeep), s.p.TTL))
}

func createdAt(t *terminal.Terminal) time.Time {
	if !t.CreatedAt.IsZero() {
		return t.CreatedAt
	}
	return t.TaskID.Time()
}

func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
