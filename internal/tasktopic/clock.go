package tasktopic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/schema/topic"
)

// Clock estimates the brokers' time, so that machines with different clocks
// agree on when a deadline has passed and when a wait in a retry tier is over.
//
// The brokers stamped a record between our sending it and their telling us the
// stamp, so the middle of the two is wrong by at most half the time between.
// An estimate over a shorter time replaces a longer one; every estimate ages,
// so that a drift is followed. It moves on with the machine's monotonic clock:
// setting the wall clock changes nothing. Until the first estimate it is the
// local clock. Safe for concurrent use.
type Clock struct {
	local func() time.Time

	mu      sync.Mutex
	at      time.Time // when the estimate was made, by the local clock; zero: never
	brokers time.Time // the brokers' time at that moment
	trip    time.Duration
}

// clockMemory is how long a good estimate outlives worse ones.
const clockMemory = time.Minute

// Now returns the present by the brokers' clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.local()
	if c.at.IsZero() {
		return now
	}
	return c.brokers.Add(now.Sub(c.at))
}

// learn takes what a broker stamped on a record that was sent and of which it
// was heard at these local times.
func (c *Clock) learn(sent, heard, stamped time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	trip := heard.Sub(sent)
	if !c.at.IsZero() && trip > c.trip && heard.Sub(c.at) < clockMemory {
		return
	}
	c.at, c.brokers, c.trip = heard, stamped.Add(trip/2), trip
}

// BrokerNow is the present by the brokers' clock: see KeepTime. Deadlines and
// waits are compared with it, and with no machine's own clock.
func (p *Publisher) BrokerNow() time.Time { return p.clock.Now() }

const (
	// syncEvery is how often the brokers are asked for their time, and
	// syncAgain how soon after they did not answer.
	syncEvery = 20 * time.Second
	syncAgain = 2 * time.Second
)

// KeepTime follows the brokers' clock until ctx ends. While they do not answer
// the last estimate stands.
func (p *Publisher) KeepTime(ctx context.Context, log *slog.Logger) {
	known := true
	for {
		err := p.Sync(ctx)
		wait := syncEvery
		if err != nil {
			wait = syncAgain
			if known && ctx.Err() == nil {
				log.Warn("the brokers' time is not known, the last estimate stands", "err", err)
			}
		}
		known = err == nil
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// errOlder is that of an estimate whose youngest record is not ours.
var errOlder = errors.New("a broker's clock went back")

// sameStamp is how often Sync asks again after it found an older record. Of
// records with one stamp the broker names the first, and services that start
// together often write in one millisecond.
const sameStamp = 5

// Sync asks the brokers for their time. A service does so before it takes its
// first task.
func (p *Publisher) Sync(ctx context.Context) error {
	for try := 1; ; try++ {
		err := p.syncOnce(ctx)
		if try == sameStamp || !errors.Is(err, errOlder) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Duration(1+rand.IntN(20*try)) * time.Millisecond):
		}
	}
}

// syncOnce writes an empty record and asks for the youngest stamp of its topic,
// which is that record's or a later one's: the client does not tell the stamp
// of its own produce.
func (p *Publisher) syncOnce(ctx context.Context) error {
	sent := p.clock.local()
	ack, err := p.produce(ctx, &kgo.Record{Topic: topic.Clock})
	if err != nil {
		return fmt.Errorf("learn the brokers' time: %w", err)
	}
	listed, err := kadm.NewClient(p.cl).ListMaxTimestampOffsets(ctx, topic.Clock)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return fmt.Errorf("learn the brokers' time: %w", err)
	}
	youngest, _ := listed.Lookup(ack.Topic, ack.Partition)
	if youngest.Timestamp < 0 || youngest.Offset < ack.Offset {
		return fmt.Errorf("learn the brokers' time: the youngest record of %s lies at %d, before ours at %d: %w",
			ack.Topic, youngest.Offset, ack.Offset, errOlder)
	}
	p.clock.learn(sent, p.clock.local(), time.UnixMilli(youngest.Timestamp))
	return nil
}
