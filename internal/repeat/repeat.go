// Package repeat lets a client's retry find the call that it repeats.
//
// Clients of the OpenAI API send no idempotency key, and retry after a timeout
// or a lost connection: one slow task would become three. So a call is noted
// under its name (what is asked, and by whom) while it is served, and apart
// once its client went away. A retry takes a call that was left, or joins the
// oldest that is served, if its server died or has not noticed. Whoever was left
// and finds that nobody took the call cancels its task.
//
// Guarantee: of calls with one name each that was left is taken by one retry.
// All of it may be lost: then a retry is a task of its own, and a task that
// nobody waits for runs to its end.
package repeat

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
)

// Bounds of what is kept.
const (
	most    = 64                           // calls of one name, in each list
	keep    = api.InteractiveLimit * 3 / 2 // since the last change
	timeout = 250 * time.Millisecond       // of one question
	quiet   = time.Second                  // Redis is left alone after it failed
)

//go:embed lua/again.lua
var againSource string

var againScript = redisclient.NewScript(againSource)

// errQuiet: Redis has failed a moment ago.
var errQuiet = errors.New("redis failed a moment ago and is left alone")

// Memory knows the calls that wait for an answer. It is safe for concurrent use
// and does not own the client.
type Memory struct {
	rdb   redis.UniversalClient
	quiet atomic.Int64 // Unix ns until when Redis is left alone
	last  atomic.Int64 // the latest Left
}

// Left is one time that a call was left: Unix µs, and no other of this process.
// Zero: another still waits for the task.
type Left int64

// New returns a Memory on a client.
func New(rdb redis.UniversalClient) *Memory { return &Memory{rdb: rdb} }

// Begin notes that a call is served by a task.
func (m *Memory) Begin(ctx context.Context, call string, id task.ID) error {
	open, left := rediskey.Calls(call)
	err := m.ask(ctx, func(ctx context.Context) error {
		if err := m.rdb.ZRem(ctx, left, string(id)).Err(); err != nil {
			return err
		}
		return m.serve(ctx, open, string(id))
	})
	return wrap("note call", err)
}

// Again finds the task of the call that a retry repeats, and notes that the
// retry waits for it; empty: none is known.
func (m *Memory) Again(ctx context.Context, call string) (task.ID, error) {
	open, left := rediskey.Calls(call)
	var id string
	err := m.ask(ctx, func(ctx context.Context) (err error) {
		id, err = againScript.Run(ctx, m.rdb, redisclient.Call{Keys: []string{left, open}, Args: []any{most, int(keep.Seconds())}}).Text()
		if errors.Is(err, redis.Nil) {
			return nil
		}
		return err
	})
	return task.ID(id), wrap("find call", err)
}

// serve adds a call to those that are served.
func (m *Memory) serve(ctx context.Context, open, id string) error {
	_, err := m.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.RPush(ctx, open, id)
		p.LTrim(ctx, open, -most, -1)
		p.Expire(ctx, open, keep)
		return nil
	})
	return err
}

// Answered forgets a call whose client has its answer.
func (m *Memory) Answered(ctx context.Context, call string, id task.ID) error {
	open, _ := rediskey.Calls(call)
	return wrap("forget call", m.ask(ctx, func(ctx context.Context) error { return m.rdb.LRem(ctx, open, 1, string(id)).Err() }))
}

// Leave notes that a call's client went away without its answer: the next
// retry takes it. Not if another still waits for the same task.
func (m *Memory) Leave(ctx context.Context, call string, id task.ID) (at Left, err error) {
	open, left := rediskey.Calls(call)
	err = m.ask(ctx, func(ctx context.Context) error {
		if err := m.rdb.LRem(ctx, open, 1, string(id)).Err(); err != nil {
			return err
		}
		if err := m.rdb.LPos(ctx, open, string(id), redis.LPosArgs{}).Err(); !errors.Is(err, redis.Nil) {
			return err
		}
		at = m.moment()
		_, err := m.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			p.ZAdd(ctx, left, redis.Z{Score: float64(at), Member: string(id)})
			p.ZRemRangeByRank(ctx, left, 0, -most-1)
			p.Expire(ctx, left, keep)
			return nil
		})
		return err
	})
	if err != nil {
		return 0, wrap("leave call", err)
	}
	return at, nil
}

// moment is the present, or later than any before.
func (m *Memory) moment() Left {
	for {
		last := m.last.Load()
		next := max(time.Now().UnixMicro(), last+1)
		if m.last.CompareAndSwap(last, next) {
			return Left(next)
		}
	}
}

// Orphan takes back a call that was left at that time, and reports whether it
// could: then nobody waits for its task. It cannot if a retry took the call since,
// even if that was left as well: then it is for the one who noted that.
func (m *Memory) Orphan(ctx context.Context, call string, at Left) (bool, error) {
	if at == 0 {
		return false, nil
	}
	_, left := rediskey.Calls(call)
	score := strconv.FormatInt(int64(at), 10)
	var taken int64
	err := m.ask(ctx, func(ctx context.Context) (err error) {
		taken, err = m.rdb.ZRemRangeByScore(ctx, left, score, score).Result()
		return err
	})
	return taken > 0, wrap("take call back", err)
}

// ask puts one question to Redis, unless it is left alone just now.
func (m *Memory) ask(ctx context.Context, question func(context.Context) error) error {
	if time.Now().UnixNano() < m.quiet.Load() {
		return errQuiet
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	err := question(ctx)
	if err != nil {
		m.quiet.Store(time.Now().Add(quiet).UnixNano())
	}
	return err
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
