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
	//go:embed lua/claim.lua
	claimSource string
	//go:embed lua/append.lua
	appendSource string

	claimScript  = redisclient.NewScript(claimSource)
	appendScript = redisclient.NewScript(appendSource)
)

// Claim begins the events of one attempt. Event is its first event and gets
// the id `<fence>-0`; left empty it is `started`, or `restart` from the second
// attempt on.
type Claim struct {
	ID      task.ID
	Fence   event.Fence
	Attempt int
	Worker  string
	Event   event.Event
}

func (c Claim) first() event.Event {
	e := c.Event
	if e.Type == "" {
		e.Type = event.Started
		if c.Attempt > 1 {
			e.Type = event.Restart
		}
	}
	if e.Attempt == 0 {
		e.Attempt = c.Attempt
	}
	if e.At.IsZero() {
		e.At = time.Now().UTC()
	}
	e.TaskID, e.ID = c.ID, event.ID{Fence: c.Fence}
	return e
}

// Claim writes an attempt's first event and creates the stream. It returns
// ErrFenced if Redis holds a newer event. Repeating it is harmless.
func (l *Log) Claim(ctx context.Context, c Claim) error {
	return l.ClaimAll(ctx, []Claim{c})[0]
}

// ClaimAll is Claim for many tasks in one round trip; the errors are in the
// order of the claims.
func (l *Log) ClaimAll(ctx context.Context, claims []Claim) []error {
	errs := make([]error, len(claims))
	calls := make([]redisclient.Call, len(claims))
	for i, c := range claims {
		entry, err := EntryOf(c.first())
		if err != nil {
			errs[i] = err // its call finds nothing to do that counts
		}
		p := l.partition(c.ID)
		calls[i] = redisclient.Call{
			Keys: []string{rediskey.Events(p, c.ID)},
			Args: []any{entry.ID.String(), entry.Data, l.nonce, l.keep(), rediskey.Live(p, c.ID)},
		}
	}
	for i, cmd := range claimScript.RunAll(ctx, l.rdb, calls) {
		fenced, err := cmd.Int()
		switch {
		case err != nil:
			errs[i] = fmt.Errorf("claim events of task %s: %w", claims[i].ID, err)
		case fenced != 0:
			errs[i] = fmt.Errorf("claim events of task %s: %w", claims[i].ID, ErrFenced)
		}
	}
	return errs
}

// Append is the next events of one task. Their ids must be set: the fence that
// was claimed, the sequence from 1 on without holes.
type Append struct {
	ID     task.ID
	Events []event.Event
}

// Append writes events of many tasks in one round trip, each task's as a
// whole, and returns an error per task: ErrFenced if a newer attempt writes,
// ErrVanished if Redis lost the stream (claim again). Repeating a call whose
// reply was lost is harmless.
func (l *Log) Append(ctx context.Context, batch []Append) []error {
	errs := make([]error, len(batch))
	calls := make([]redisclient.Call, 0, len(batch))
	index := make([]int, 0, len(batch))
	for i, a := range batch {
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
	args := append(make([]any, 0, 3+2*len(a.Events)), l.nonce, l.keep(), rediskey.Live(p, a.ID))
	for _, e := range a.Events {
		entry, err := EntryOf(e)
		if err != nil {
			return redisclient.Call{}, err
		}
		args = append(args, entry.ID.String(), entry.Data)
	}
	return redisclient.Call{Keys: []string{rediskey.Events(p, a.ID)}, Args: args}, nil
}

func (l *Log) keep() int64 { return int64((l.p.TTL + time.Second - 1) / time.Second) }
