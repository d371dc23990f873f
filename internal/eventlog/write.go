package eventlog

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

var (
	//go:embed lua/append.lua
	appendSource string

	appendScript = redisclient.NewScript(appendSource)
)

// Append is the next events of one task. Their ids must be set: the fence that
// was claimed, the sequence from 1 on without holes. Only a gap may be first and
// lie anywhere: it has the id of the last event that is lost.
type Append struct {
	ID     task.ID
	Events []event.Event
}

// Append writes events of many tasks in one round trip, each task's as a
// whole, and returns an error per task: ErrFenced if a newer attempt writes,
// ErrVanished if Redis lost the stream or the end of it (prove that the task is
// still ours, then claim again and repeat what was written). Repeating what is
// there is harmless.
func (l *Log) Append(ctx context.Context, batch []Append) []error {
	errs := make([]error, len(batch))
	calls := make([]redisclient.Call, 0, len(batch))
	index := make([]int, 0, len(batch))
	for i, a := range batch {
		if len(a.Events) == 0 {
			continue
		}
		call, err := l.appendCall(a)
		if err != nil {
			errs[i] = err
			continue
		}
		calls, index = append(calls, call), append(index, i)
	}
	for n, cmd := range appendScript.RunAll(ctx, l.rdb, calls) {
		i := index[n]
		length, err := cmd.Int()
		switch {
		case err != nil:
			errs[i] = fmt.Errorf("append events of task %s: %w", batch[i].ID, err)
		case length == -1:
			errs[i] = fmt.Errorf("append events of task %s: %w", batch[i].ID, ErrFenced)
		case length == -2:
			errs[i] = fmt.Errorf("append events of task %s: %w", batch[i].ID, ErrVanished)
		case length > l.p.MaxLen:
			_ = l.fold(ctx, batch[i].ID) // the events are written; the next append tries again
		}
	}
	return errs
}

func (l *Log) appendCall(a Append) (redisclient.Call, error) {
	p := l.partition(a.ID)
	first, last := a.Events[0], a.Events[len(a.Events)-1]
	args := append(make([]any, 0, 5+2*len(a.Events)), l.nonce, rediskey.Live(p, a.ID), first.ID.Fence.Padded(), needs(first), l.measures(first.ID.Seq, last.ID.Seq))
	for _, e := range a.Events {
		entry, err := EntryOf(e)
		if err != nil {
			return redisclient.Call{}, err
		}
		args = append(args, entry.ID.String(), entry.Data)
	}
	return redisclient.Call{Keys: []string{rediskey.Events(p, a.ID), rediskey.Claim(p, a.ID)}, Args: args}, nil
}

// needs is the sequence that must be there before an event is written; -1: any.
func needs(e event.Event) int64 {
	if e.Type == event.Gap {
		return -1
	}
	return int64(e.ID.Seq) - 1
}

// measured is how often a stream's length is looked at while it grows to the bound.
const measured = 256

// measures tells the script whether the length is wanted once events up to a
// sequence are there: looking is time that every append would take.
func (l *Log) measures(first, last uint64) string {
	every := uint64(max(1, l.p.MaxLen/measured))
	if first/every < (last+1)/every {
		return "1"
	}
	return "0"
}

func (l *Log) keep() int64 { return int64((l.p.TTL + time.Second - 1) / time.Second) }
