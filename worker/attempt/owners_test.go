package attempt_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/penstock/penstock/internal/devstack"
	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/worker/attempt"
	"github.com/penstock/penstock/worker/attempt/attempttest"
	"github.com/penstock/penstock/worker/backend"
)

// line is an owner's way to Redis. It stands still, breaks, or loses replies.
type line struct {
	attempt.Log

	mu    sync.Mutex
	still chan struct{} // closed when it goes on
	fails int           // calls that never arrive
	loses int           // calls that are answered by an error, and done
}

var errLine = errors.New("i/o timeout")

// call reports whether the next call arrives, and whether its answer does.
func (l *line) call() (arrives, answers bool) {
	l.mu.Lock()
	still := l.still
	l.mu.Unlock()
	if still != nil {
		<-still
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.fails > 0:
		l.fails--
		return false, false
	case l.loses > 0:
		l.loses--
		return true, false
	default:
		return true, true
	}
}

func (l *line) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.still == nil {
		l.still = make(chan struct{})
	}
}

func (l *line) goOn() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.still != nil {
		close(l.still)
		l.still = nil
	}
}

func (l *line) ClaimAll(ctx context.Context, claims []eventlog.Claim) []eventlog.Grant {
	arrives, answers := l.call()
	grants := make([]eventlog.Grant, len(claims))
	if arrives {
		grants = l.Log.ClaimAll(ctx, claims)
	}
	for i := range grants {
		if !answers {
			grants[i].Err = errLine
		}
	}
	return grants
}

func (l *line) Append(ctx context.Context, batch []eventlog.Append) []error {
	arrives, answers := l.call()
	errs := make([]error, len(batch))
	if arrives {
		errs = l.Log.Append(ctx, batch)
	}
	for i := range errs {
		if !answers {
			errs[i] = errLine
		}
	}
	return errs
}

// owner is a worker that runs the task.
type owner struct {
	line  *line
	try   *attempt.Try
	words chan string
	said  string
	owns  bool
	mu    sync.Mutex
}

func (o *owner) owned(context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.owns {
		return errNotOwned
	}
	return nil
}

func (o *owner) own(yes bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.owns = yes
}

// step is one thing that happens, and how long nothing does after it.
type step struct {
	what string
	n    int
	wait time.Duration
}

func steps(what ...string) *rapid.Generator[[]step] {
	one := rapid.Custom(func(r *rapid.T) step {
		return step{
			what: rapid.SampledFrom(what).Draw(r, "what"), n: rapid.IntRange(1, 6).Draw(r, "n"),
			wait: time.Duration(rapid.SampledFrom([]int{0, 1, 20, 50, 300, 2000}).Draw(r, "ms")) * time.Millisecond,
		}
	})
	return rapid.SliceOfN(one, 1, 16)
}

// The first owner loses Redis now and then. Then it may be stopped, another
// takes the task over, Redis is emptied and replies are lost, and the first
// goes on: not one entry of it is taken any more, and what each of them has
// written is whole.
func TestWhateverIsLostOnlyTheOwnerWritesAndNothingIsMissing(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		alone := steps("old speaks", "old speaks", "flush", "lose the end", "old loses replies", "old is cut off").Draw(r, "alone")
		stopped := rapid.Bool().Draw(r, "stopped")
		both := steps("old speaks", "old speaks", "new speaks", "new speaks", "flush", "old goes on", "old loses replies", "new loses replies", "new is cut off").Draw(r, "both")
		var wrong []string
		synctest.Test(t, func(t *testing.T) { wrong = (&contest{t: t}).run(alone, stopped, both) })
		if len(wrong) > 0 {
			r.Fatal(strings.Join(wrong, "\n"))
		}
	})
}

// contest is two owners over one Redis.
type contest struct {
	t        *testing.T
	store    *devstack.Store
	rdb      *redis.Client
	id       task.ID
	old, new *owner
	running  sync.WaitGroup
	ctx      context.Context
}

func (c *contest) client() *redis.Client {
	return redis.NewClient(&redis.Options{Addr: c.store.Addr(), Dialer: c.store.Dial})
}

func (c *contest) run(alone []step, stopped bool, both []step) []string {
	var err error
	if c.store, err = devstack.OpenStore(devstack.StoreParams{Virtual: true}); err != nil {
		c.t.Fatal(err)
	}
	defer c.store.Close()
	c.rdb, c.id = c.client(), newTry(1, true).Task.ID
	defer c.rdb.Close()
	ctx, cancel := context.WithCancel(context.Background())
	c.ctx = ctx
	sub := c.rdb.PSubscribe(ctx, "penstock:*")
	if _, err := sub.Receive(ctx); err != nil {
		c.t.Fatal(err)
	}
	w := &entries{}
	c.running.Go(func() { w.read(sub) })

	c.old = c.start(7)
	c.play(alone)
	time.Sleep(6 * time.Second) // it has proven and repeated what was lost
	if stopped {
		c.old.line.stop()
	}
	c.old.own(false)
	c.new = c.start(8)
	c.play(both)
	c.old.line.goOn()
	time.Sleep(6 * time.Second)
	c.old.speak(1) // a loss is seen by who writes
	c.new.speak(1)
	time.Sleep(6 * time.Second)
	close(c.old.words)
	close(c.new.words)
	time.Sleep(time.Second)
	wrong := append(w.wrong(), c.missing()...)
	cancel()
	_ = sub.Close()
	c.running.Wait()
	return wrong
}

// start has an owner claim the task and run it.
func (c *contest) start(group int32) *owner {
	rdb := c.client()
	o := &owner{line: &line{Log: eventlog.New(rdb, eventlog.Params{})}, try: newTry(1, true), words: make(chan string), owns: true}
	o.try.Fence, _ = event.NewFence(0, 0, group, 0)
	o.try.Owned, o.try.Insist = o.owned, true
	r := attempt.NewRunner(attempt.Params{
		Store: attempttest.NewRedis(), Log: o.line, Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
		Worker: fmt.Sprint(group), Timeout: time.Hour, Idle: time.Hour, TokenEvery: 100 * time.Millisecond,
	})
	c.running.Go(func() { r.Run(c.ctx); _ = rdb.Close() })
	c.running.Go(func() {
		r.Do(c.ctx, call(func(_ context.Context, items []backend.Item) []backend.Outcome {
			for word := range o.words {
				items[0].Emit(backend.Piece{Text: word})
			}
			return []backend.Outcome{attempttest.OK(o.said)}
		}), []*attempt.Try{o.try})
	})
	synctest.Wait() // it has claimed
	return o
}

func (o *owner) speak(n int) {
	for range n {
		word := fmt.Sprintf("%d ", strings.Count(o.said, " "))
		o.said += word
		o.words <- word
	}
}

func (c *contest) play(all []step) {
	for _, s := range all {
		switch s.what {
		case "old speaks":
			c.old.speak(s.n)
		case "new speaks":
			c.new.speak(s.n)
		case "flush":
			c.store.Redis().FlushAll()
		case "lose the end":
			c.loseEnd(s.n)
		case "old loses replies":
			c.old.line.trouble(0, s.n)
		case "new loses replies":
			c.new.line.trouble(0, s.n)
		case "old is cut off":
			c.old.line.trouble(s.n, 0)
		case "new is cut off":
			c.new.line.trouble(s.n, 0)
		case "old goes on":
			c.old.line.goOn()
		}
		time.Sleep(s.wait)
	}
}

func (l *line) trouble(fails, loses int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fails, l.loses = fails, loses
}

func (c *contest) key() string {
	p := topic.ResultsPartition(c.id, 12)
	return rediskey.Events(p, c.id)
}

// loseEnd leaves the stream without its last n entries, as on a replica that
// was promoted.
func (c *contest) loseEnd(n int) {
	all, err := c.rdb.XRange(c.ctx, c.key(), "-", "+").Result()
	if err != nil {
		c.t.Fatal(err)
	}
	c.rdb.Del(c.ctx, c.key())
	for _, e := range all[:max(0, len(all)-n)] {
		c.rdb.XAdd(c.ctx, &redis.XAddArgs{Stream: c.key(), ID: e.ID, Values: []any{"e", e.Values["e"], "n", e.Values["n"]}})
	}
}

// missing says what the stream lacks of what the owner has said in the end.
func (c *contest) missing() []string {
	events, _, err := eventlog.New(c.rdb, eventlog.Params{}).Read(c.ctx, c.id, event.ID{}, 10_000)
	if err != nil {
		c.t.Fatal(err)
	}
	text := ""
	for _, e := range events {
		if e.ID.Fence == c.new.try.Fence {
			text += e.Text
		}
	}
	if text != c.new.said {
		return []string{fmt.Sprintf("the owner said %q, the stream has %q", c.new.said, text)}
	}
	return nil
}

// entries is everything that Redis took, in the order in which it did.
type entries struct {
	mu  sync.Mutex
	ids []event.ID
}

func (w *entries) read(sub *redis.PubSub) {
	for {
		got, err := sub.Receive(context.Background())
		if err != nil {
			return // closed
		}
		if m, ok := got.(*redis.Message); ok {
			text, _, _ := strings.Cut(m.Payload, " ")
			if id, err := event.ParseID(text); err == nil {
				w.mu.Lock()
				w.ids = append(w.ids, id)
				w.mu.Unlock()
			}
		}
	}
}

// wrong names the entries of an owner after its successor's first, and those
// that leave a hole. Nothing here is too much to remember, so no gap is due.
func (w *entries) wrong() (out []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var top event.ID
	for _, id := range w.ids {
		switch {
		case id.Fence < top.Fence:
			out = append(out, fmt.Sprintf("%s was taken after %s", id, top))
		case id.Fence > top.Fence && id.Seq > 0, id.Fence == top.Fence && id.Seq > top.Seq+1:
			out = append(out, fmt.Sprintf("%s follows %s", id, top))
		}
		if top.Less(id) {
			top = id
		}
	}
	return out
}
