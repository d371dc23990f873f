package eventlog

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

//go:embed lua/claim.lua
var claimSource string

var claimScript = redisclient.NewScript(claimSource)

// Errors of a claim that say: do not run the task now. Nothing was claimed.
var (
	// ErrHeld: another worker claimed the task, and is alive. It is a hint and
	// never a lock: Claim.Insist passes over it.
	ErrHeld = errors.New("another worker runs the task")
	// ErrBarred: the task was lost again, and its record does not say so yet.
	ErrBarred = errors.New("the task's losses are not in its record")
)

const (
	// StaleAfter is how long a claim lives without a beat.
	StaleAfter = 3 * time.Second
	// BarredFrom is the number of losses from which on ErrBarred wants them in
	// the record: a Redis that is emptied must not forget a killer.
	BarredFrom = 2
)

// Claim begins an attempt. Event is its first event and gets the id
// `<fence>-0`; left empty it is `started`, or `restart` from the second attempt
// on.
type Claim struct {
	ID      task.ID
	Fence   event.Fence
	Attempt int
	Worker  string
	Event   event.Event
	Losses  int  // that the task's record tells of
	Insist  bool // claim it even while another worker seems to run it
}

// Grant is the answer to a claim.
type Grant struct {
	// Losses is how many claims of the task in this generation have ended
	// without an outcome: the record's, or more that Redis knows of.
	Losses int
	// Lost is the claim that was found without an outcome just now, and so
	// counted; nil: none was.
	Lost *Lost
	// Err is nil, ErrFenced (the attempt has no token stream), ErrHeld,
	// ErrBarred, or a fault of Redis, in which case nothing is known.
	Err error
}

// Lost is a claim of which nothing came: its worker died, or stood still.
type Lost struct {
	Fence   event.Fence
	Worker  string
	Claimed time.Time // by the store's clock
	Beat    time.Time // its last sign of life
}

// Claim takes a task's claim, writes the attempt's first event and creates the
// stream. Its errors are those of Grant. Repeating it is harmless.
func (l *Log) Claim(ctx context.Context, c Claim) error {
	return l.ClaimAll(ctx, []Claim{c})[0].Err
}

// ClaimAll is Claim for many tasks in one round trip; the answers are in the
// order of the claims.
func (l *Log) ClaimAll(ctx context.Context, claims []Claim) []Grant {
	grants := make([]Grant, len(claims))
	calls := make([]redisclient.Call, 0, len(claims))
	index := make([]int, 0, len(claims))
	for i, c := range claims {
		call, err := l.claimCall(c)
		if err != nil {
			grants[i] = Grant{Losses: c.Losses, Err: err}
			continue
		}
		calls, index = append(calls, call), append(index, i)
	}
	for n, cmd := range claimScript.RunAll(ctx, l.rdb, calls) {
		i := index[n]
		grants[i] = grantOf(cmd, claims[i])
		if grants[i].Err != nil {
			grants[i].Err = fmt.Errorf("claim task %s: %w", claims[i].ID, grants[i].Err)
		}
	}
	return grants
}

func (l *Log) claimCall(c Claim) (redisclient.Call, error) {
	entry, err := EntryOf(c.first())
	if err != nil {
		return redisclient.Call{}, err
	}
	insist := "0"
	if c.Insist {
		insist = "1"
	}
	p := l.partition(c.ID)
	return redisclient.Call{
		Keys: []string{rediskey.Events(p, c.ID), rediskey.Claim(p, c.ID)},
		Args: []any{
			entry.ID.String(), entry.Data, l.nonce, l.keep(), rediskey.Live(p, c.ID),
			c.Fence.Padded(), int(c.Fence.Generation()), int(c.Fence.Hop()), c.Losses,
			StaleAfter.Milliseconds(), insist, c.Worker, BarredFrom,
		},
	}, nil
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

var errReply = errors.New("unexpected reply")

func grantOf(cmd *redis.Cmd, c Claim) Grant {
	reply, err := cmd.Slice()
	if err != nil {
		return Grant{Losses: c.Losses, Err: err}
	}
	if len(reply) < 2 {
		return Grant{Losses: c.Losses, Err: errReply}
	}
	code, _ := reply[0].(int64)
	losses, ok := reply[1].(int64)
	if !ok || losses < 0 || code < 0 || int(code) >= len(claimErrors()) {
		return Grant{Losses: c.Losses, Err: errReply}
	}
	return Grant{Losses: int(losses), Lost: lostOf(reply[2:]), Err: claimErrors()[code]}
}

// claimErrors are the script's codes.
func claimErrors() [4]error { return [4]error{nil, ErrFenced, ErrHeld, ErrBarred} }

func lostOf(rest []any) *Lost {
	if len(rest) == 0 {
		return nil
	}
	fields, _ := rest[0].([]any)
	if len(fields) != 4 {
		return nil
	}
	var text [4]string
	for i, f := range fields {
		text[i], _ = f.(string)
	}
	fence, _ := strconv.ParseUint(text[0], 10, 64)
	return &Lost{Fence: event.Fence(fence), Worker: text[1], Claimed: milliseconds(text[2]), Beat: milliseconds(text[3])}
}

func milliseconds(text string) time.Time {
	ms, _ := strconv.ParseInt(text, 10, 64)
	return time.UnixMilli(ms).UTC()
}
