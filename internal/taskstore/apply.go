package taskstore

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/penstock/penstock/internal/projection"
	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/terminal"
)

//go:embed lua/apply.lua
var applySource string

var applyScript = redisclient.NewScript(applySource)

// minKeep is how long a result is kept that is older than its time to live
// when it is applied: later records of its task must still meet it.
const minKeep = time.Minute

// Applied is one decoded record of a results partition.
type Applied struct {
	Terminal *terminal.Terminal
	Offset   int64
}

// Apply folds records of one partition into the projection: task, event stream,
// live channel, tenant index and the partition's position. See
// projection.Apply for its arguments and errors.
func (s *Store) Apply(ctx context.Context, partition int32, from, upTo int64, recs []Applied) error {
	now := time.Now()
	return projection.Apply(ctx, s.Positions, projection.Fold[Applied]{
		Script: applyScript,
		Begin: func(call *redisclient.Call, partition int32) {
			call.Keys = append(call.Keys, rediskey.Due(partition))
			call.Args = append(call.Args, seconds(s.p.MaxAge+s.p.TTL), now.Add(-s.p.MaxAge-s.p.TTL).UnixMilli())
		},
		Add: func(call *redisclient.Call, partition int32, r Applied) (int, error) {
			return s.addRecord(call, partition, r, now)
		},
		Offset: func(r Applied) int64 { return r.Offset },
	}, partition, from, upTo, recs)
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
