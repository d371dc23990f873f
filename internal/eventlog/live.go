package eventlog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/task"
)

// Live is one Pub/Sub connection over which any number of tasks are watched.
// After an error it is of no more use: open another and watch again. Watch and
// Unwatch may run beside Receive, of which there is one at a time.
type Live struct {
	log   *Log
	sub   *redis.PubSub
	quiet time.Duration
}

// Notice is what a Live receives.
type Notice struct {
	Task  task.ID
	Ready bool  // the subscription stands: what is written from here on will come
	Entry Entry // else an event
}

// Live returns a connection that watches nothing yet. It does no I/O.
func (l *Log) Live() *Live {
	return &Live{log: l, sub: l.rdb.Subscribe(context.Background()), quiet: quiet}
}

// channelsPerCommand bounds one SUBSCRIBE.
const channelsPerCommand = 1024

// Watch subscribes to tasks, all in one command; each is answered by a Notice
// that is Ready.
func (v *Live) Watch(ctx context.Context, ids []task.ID) error {
	return v.each(ctx, ids, v.sub.Subscribe)
}

// Unwatch ends subscriptions.
func (v *Live) Unwatch(ctx context.Context, ids []task.ID) error {
	return v.each(ctx, ids, v.sub.Unsubscribe)
}

func (v *Live) each(ctx context.Context, ids []task.ID, command func(context.Context, ...string) error) error {
	for len(ids) > 0 {
		n := min(len(ids), channelsPerCommand)
		channels := make([]string, n)
		for i, id := range ids[:n] {
			channels[i] = rediskey.Live(v.log.partition(id), id)
		}
		if err := command(ctx, channels...); err != nil {
			return fmt.Errorf("watch events: %w", err)
		}
		ids = ids[n:]
	}
	return nil
}

// quiet is how long the connection may say nothing before it is asked whether
// it still lives, and then how long the answer may take.
const quiet = 5 * time.Second

// Receive waits for the next notice. Any error means that notices may have
// been lost.
func (v *Live) Receive(ctx context.Context) (Notice, error) {
	asked := false
	for {
		got, err := v.sub.ReceiveTimeout(ctx, v.quiet)
		var slow net.Error
		switch {
		case err == nil:
			asked = false
		case errors.As(err, &slow) && slow.Timeout() && ctx.Err() == nil && !asked:
			if err := v.sub.Ping(ctx); err != nil {
				return Notice{}, fmt.Errorf("ping live events: %w", err)
			}
			asked = true
			continue
		default:
			return Notice{}, fmt.Errorf("receive live events: %w", err)
		}
		if n, ok, err := noticeOf(got); ok || err != nil {
			return n, err
		}
	}
}

func noticeOf(got any) (n Notice, ok bool, err error) {
	switch m := got.(type) {
	case *redis.Subscription:
		id, named := rediskey.TaskOfLive(m.Channel)
		return Notice{Task: id, Ready: true}, named && m.Kind == "subscribe", nil
	case *redis.Message:
		id, named := rediskey.TaskOfLive(m.Channel)
		if !named {
			return Notice{}, false, nil
		}
		entry, err := cutLive(m.Payload)
		return Notice{Task: id, Entry: entry}, err == nil, err
	default: // a pong
		return Notice{}, false, nil
	}
}

// Close ends the connection and a Receive that waits on it.
func (v *Live) Close() error { return v.sub.Close() }
