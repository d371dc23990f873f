// Package projection keeps in Redis how far each partition of a Kafka topic is
// applied to it.
//
// Guarantee: a position moves in the same script as what is applied, so records
// take effect in the order of the log and each once, and a Redis that lost its
// data is seen by the position it lost: it is then filled again from the start
// of the log.
package projection

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/redisclient"
)

//go:embed lua/rebuild.lua
var rebuildSource string

var rebuildScript = redisclient.NewScript(rebuildSource)

// Position says how far one partition is applied. The zero value is a Redis
// that knows nothing of it.
type Position struct {
	Next   int64 // offset of the next record to apply
	Target int64 // end of the log when the (re)build began
	Known  bool
}

// CaughtUp reports whether the projection holds all that the log held when the
// build began: from then on what is not there was never in the log.
func (p Position) CaughtUp() bool { return p.Known && p.Next >= p.Target }

// Positions are those of one topic's partitions. They are safe for concurrent
// use and do not own the client.
type Positions struct {
	rdb redis.UniversalClient
	log string
	key func(partition int32) string
}

// New returns the positions that lie under keys. Log names what is applied, in
// errors.
func New(rdb redis.UniversalClient, log string, key func(partition int32) string) *Positions {
	return &Positions{rdb, log, key}
}

// Projection reads the position of one partition.
func (s *Positions) Projection(ctx context.Context, partition int32) (Position, error) {
	all, err := s.Projections(ctx, []int32{partition})
	if err != nil {
		return Position{}, err
	}
	return all[0], nil
}

// Projections reads the positions of several partitions in one round trip.
func (s *Positions) Projections(ctx context.Context, partitions []int32) ([]Position, error) {
	pipe := s.rdb.Pipeline()
	reads := s.Reads()
	for _, p := range partitions {
		reads.Ask(ctx, pipe, p)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("read projection of %s: %w", s.log, err)
	}
	out := make([]Position, len(partitions))
	for i, p := range partitions {
		var err error
		if out[i], err = reads.Of(p); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Reads are positions that pipelines bring beside what else they read.
type Reads struct {
	of   *Positions
	cmds map[int32]*redis.SliceCmd
}

// Reads returns the positions that will be asked for.
func (s *Positions) Reads() *Reads { return &Reads{s, map[int32]*redis.SliceCmd{}} }

// Ask adds the position of a partition to a pipeline, unless it was asked for.
func (r *Reads) Ask(ctx context.Context, pipe redis.Pipeliner, partition int32) {
	if r.cmds[partition] == nil {
		r.cmds[partition] = pipe.HMGet(ctx, r.of.key(partition), "next", "target")
	}
}

// Of is a position that was asked for, once the pipeline was executed.
func (r *Reads) Of(partition int32) (Position, error) {
	v := r.cmds[partition].Val()
	next, known := redisclient.Text(v, 0)
	if !known {
		return Position{}, nil
	}
	target, _ := redisclient.Text(v, 1)
	n, err1 := strconv.ParseInt(next, 10, 64)
	t, err2 := strconv.ParseInt(target, 10, 64)
	if err1 != nil || err2 != nil {
		return Position{}, fmt.Errorf("read projection of %s: next %q, target %q are not offsets", r.of.log, next, target)
	}
	return Position{Next: n, Target: t, Known: true}, nil
}

// Rebuild sets a partition's position where there is none: the projection
// starts over at the log's start, and is caught up at target. A position that
// is there is left alone.
func (s *Positions) Rebuild(ctx context.Context, partition int32, start, target int64) error {
	_, err := s.place(ctx, partition, start, target, "")
	return err
}

// Replace is Rebuild for a log that was created anew: it overwrites the
// position stale, and reports whether it was still there.
func (s *Positions) Replace(ctx context.Context, partition int32, stale, start, target int64) (bool, error) {
	return s.place(ctx, partition, start, target, strconv.FormatInt(stale, 10))
}

func (s *Positions) place(ctx context.Context, partition int32, start, target int64, stale string) (bool, error) {
	set, err := rebuildScript.Run(ctx, s.rdb, redisclient.Call{Keys: []string{s.key(partition)}, Args: []any{start, target, stale}}).Bool()
	if err != nil {
		return false, fmt.Errorf("rebuild %s partition %d: %w", s.log, partition, err)
	}
	return set, nil
}
