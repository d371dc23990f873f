package eventlog

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

var (
	//go:embed lua/beat.lua
	beatSource string
	//go:embed lua/release.lua
	releaseSource string

	beatScript    = redisclient.NewScript(beatSource)
	releaseScript = redisclient.NewScript(releaseSource)
)

// Hold is a claim that this log wrote.
type Hold struct {
	ID    task.ID
	Fence event.Fence
	// Ended, of a release: the attempt's outcome ends the task. Others stay
	// away for StaleAfter, so that it becomes known meanwhile.
	Ended bool
}

const (
	holdsPerCall = 256              // of one script call: it must not keep the server for long
	endedKept    = 10 * time.Second // of a claim whose task has ended; above StaleAfter
)

// Beat says that attempts still run, all in one round trip: from here on their
// claims and events are kept for the time to live. Claims that others hold by now
// are left alone.
func (l *Log) Beat(ctx context.Context, holds []Hold) error {
	err := l.forHolds(ctx, beatScript, holds, []any{l.nonce, l.keep()}, func(p int32, h Hold, c *redisclient.Call) {
		c.Keys = append(c.Keys, rediskey.Claim(p, h.ID), rediskey.Events(p, h.ID))
		c.Args = append(c.Args, h.Fence.Padded())
	})
	if err != nil {
		return fmt.Errorf("beat claims: %w", err)
	}
	return nil
}

// Release lets go of claims, all in one round trip. What is released is no
// loss. Repeating it is harmless.
func (l *Log) Release(ctx context.Context, holds []Hold) error {
	first := []any{l.nonce, int64(endedKept / time.Second)}
	err := l.forHolds(ctx, releaseScript, holds, first, func(p int32, h Hold, c *redisclient.Call) {
		ended := "0"
		if h.Ended {
			ended = "1"
		}
		c.Keys = append(c.Keys, rediskey.Claim(p, h.ID))
		c.Args = append(c.Args, h.Fence.Padded(), ended)
	})
	if err != nil {
		return fmt.Errorf("release claims: %w", err)
	}
	return nil
}

// forHolds calls a script for the claims of each partition together; add puts one
// to the keys and the arguments.
func (l *Log) forHolds(ctx context.Context, s redisclient.Script, holds []Hold, first []any, add func(partition int32, h Hold, c *redisclient.Call)) error {
	var calls []redisclient.Call
	for p, all := range rediskey.ByPartition(holds, func(h Hold) int32 { return l.partition(h.ID) }) {
		for chunk := range slices.Chunk(all, holdsPerCall) {
			call := redisclient.Call{Args: slices.Clone(first)}
			for _, i := range chunk {
				add(p, holds[i], &call)
			}
			calls = append(calls, call)
		}
	}
	var errs []error
	for _, cmd := range s.RunAll(ctx, l.rdb, calls) {
		errs = append(errs, cmd.Err())
	}
	return errors.Join(errs...)
}
