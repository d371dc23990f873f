package convstore

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"time"

	"github.com/penstock/penstock/internal/projection"
	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/conversation"
)

//go:embed lua/apply.lua
var applySource string

var applyScript = redisclient.NewScript(applySource)

// grace is how long a session that is past its life is kept when it is applied:
// in a rebuild the records that prolong it follow.
const grace = 10 * time.Minute

// Applied is one decoded record.
type Applied struct {
	Record *conversation.Record
	Offset int64
}

// Apply folds records of one partition into the projection. See
// projection.Apply for its arguments and errors.
func (s *Store) Apply(ctx context.Context, partition int32, from, upTo int64, recs []Applied) error {
	now := time.Now()
	return projection.Apply(ctx, s.Positions, projection.Fold[Applied]{
		Script: applyScript,
		Begin: func(call *redisclient.Call, _ int32) {
			call.Args = append(call.Args, MaxTurns, MaxBytes, now.Add(grace).UnixMilli())
		},
		Add: func(call *redisclient.Call, partition int32, r Applied) (int, error) {
			return s.add(call, partition, r, now)
		},
		Offset: func(r Applied) int64 { return r.Offset },
	}, partition, from, upTo, recs)
}

// add appends one record's keys and arguments and returns the size of its JSON.
func (s *Store) add(call *redisclient.Call, partition int32, a Applied, now time.Time) (int, error) {
	r := a.Record
	step, until := r.Step, r.Until
	var told any
	switch {
	case step == conversation.Opened, step == conversation.Kept:
		told = r.Settings
	case step == conversation.Turned:
		told = Turn{TaskID: r.TaskID, Lane: r.Lane, At: r.At, Content: r.Content, ContentRef: r.ContentRef}
	case step == conversation.Stored && until.Before(now):
		step = "" // advances the position and nothing else
	case step == conversation.Stored:
		told = Request{At: r.At, Content: r.Content, ContentRef: r.ContentRef, Offset: a.Offset}
	case step == conversation.Deleted:
		until = now.Add(s.p.Life)
	}
	var value []byte
	if told != nil {
		var err error
		if value, err = json.Marshal(told); err != nil {
			return 0, fmt.Errorf("encode record at offset %d of conversations partition %d: %w", a.Offset, partition, err)
		}
	}
	if r.SessionID != "" {
		head, turns, order := rediskey.Session(partition, r.Key())
		call.Keys = append(call.Keys, head, turns, order)
	} else {
		key := rediskey.Stored(partition, r.TaskID)
		call.Keys = append(call.Keys, key, key, key)
	}
	call.Args = append(call.Args, a.Offset, string(step), string(r.TaskID), value, r.At.UnixMilli(), until.UnixMilli())
	return len(value), nil
}
