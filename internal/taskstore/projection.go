package taskstore

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/rediskey"
)

//go:embed lua/rebuild.lua
var rebuildSource string

var rebuildScript = redisclient.NewScript(rebuildSource)

// Projection says how far one results partition is applied. The zero value is
// a Redis that knows nothing of it.
type Projection struct {
	Next   int64 // offset of the next record to apply
	Target int64 // end of the log when the (re)build began
	Known  bool
}

// CaughtUp reports whether the projection holds all that the log held when the
// build began: from then on an unknown task has no terminal.
func (p Projection) CaughtUp() bool { return p.Known && p.Next >= p.Target }

// Projection reads the position of one partition.
func (s *Store) Projection(ctx context.Context, partition int32) (Projection, error) {
	all, err := s.Projections(ctx, []int32{partition})
	if err != nil {
		return Projection{}, err
	}
	return all[0], nil
}

// Projections reads the positions of several partitions in one round trip.
func (s *Store) Projections(ctx context.Context, partitions []int32) ([]Projection, error) {
	pipe := s.rdb.Pipeline()
	cmds := make([]*redis.SliceCmd, len(partitions))
	for i, p := range partitions {
		cmds[i] = s.projection(ctx, pipe, p)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("read projection: %w", err)
	}
	out := make([]Projection, len(cmds))
	for i, c := range cmds {
		var err error
		if out[i], err = projectionOf(c); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *Store) projection(ctx context.Context, pipe redis.Pipeliner, partition int32) *redis.SliceCmd {
	return pipe.HMGet(ctx, rediskey.Projection(partition), "next", "target")
}

func projectionOf(c *redis.SliceCmd) (Projection, error) {
	v := c.Val()
	next, ok := text(v, 0)
	if !ok {
		return Projection{}, nil
	}
	target, _ := text(v, 1)
	n, err1 := strconv.ParseInt(next, 10, 64)
	t, err2 := strconv.ParseInt(target, 10, 64)
	if err1 != nil || err2 != nil {
		return Projection{}, fmt.Errorf("read projection: next %q, target %q are not offsets", next, target)
	}
	return Projection{Next: n, Target: t, Known: true}, nil
}

// Rebuild sets a partition's position where there is none: the projection
// starts over at the log's start, and is caught up at target. A position that
// is there is left alone.
func (s *Store) Rebuild(ctx context.Context, partition int32, start, target int64) error {
	_, err := s.place(ctx, partition, start, target, "")
	return err
}

// Replace is Rebuild for a log that was created anew: it overwrites the
// position stale, and reports whether it was still there.
func (s *Store) Replace(ctx context.Context, partition int32, stale, start, target int64) (bool, error) {
	return s.place(ctx, partition, start, target, strconv.FormatInt(stale, 10))
}

func (s *Store) place(ctx context.Context, partition int32, start, target int64, stale string) (bool, error) {
	set, err := rebuildScript.Run(ctx, s.rdb, redisclient.Call{
		Keys: []string{rediskey.Projection(partition)}, Args: []any{start, target, stale},
	}).Bool()
	if err != nil {
		return false, fmt.Errorf("rebuild results partition %d: %w", partition, err)
	}
	return set, nil
}

// text returns the i-th value of an HMGET, false if the field is absent.
func text(v []any, i int) (string, bool) {
	if i >= len(v) {
		return "", false
	}
	s, ok := v[i].(string)
	return s, ok
}
