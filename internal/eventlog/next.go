package eventlog

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/event"
)

// Nexts returns the id of the first event of each range, zero where there is none,
// in one round trip. Tasks must not repeat. Thousands of streams in which nothing
// happens are asked for all the time, so each costs Redis no more than a look at
// its newest id, and has no answer of its own.
func (l *Log) Nexts(ctx context.Context, ranges []Range) ([]event.ID, error) {
	pipe := l.rdb.Pipeline()
	type command struct {
		reply *redis.XStreamSliceCmd
		keys  []string
		index []int // of the range that asks for each key
	}
	var commands []command
	for partition, some := range rediskey.ByPartition(ranges, func(r Range) int32 { return l.partition(r.ID) }) {
		streams := make([]string, 2*len(some)) // all keys, then all ids
		for j, i := range some {
			streams[j], streams[len(some)+j] = rediskey.Events(partition, ranges[i].ID), ranges[i].After.String()
		}
		reply := pipe.XRead(ctx, &redis.XReadArgs{Streams: streams, Count: 1, Block: -1})
		commands = append(commands, command{reply, streams[:len(some)], some})
	}
	_, _ = pipe.Exec(ctx) // each command carries its own error
	out := make([]event.ID, len(ranges))
	for _, c := range commands {
		streams, err := c.reply.Result()
		if err != nil && !errors.Is(err, redis.Nil) { // nil: nothing in any of them
			return nil, fmt.Errorf("look for new events: %w", err)
		}
		for _, s := range streams {
			at := slices.Index(c.keys, s.Stream)
			if at < 0 || len(s.Messages) == 0 {
				continue
			}
			if out[c.index[at]], err = event.ParseID(s.Messages[0].ID); err != nil {
				return nil, fmt.Errorf("look for new events in %s: %q: %w", s.Stream, s.Messages[0].ID, err)
			}
		}
	}
	return out, nil
}
