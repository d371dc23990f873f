package follow_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const partitions = 1

type bundle struct {
	t        *testing.T
	redis    *miniredis.Miniredis // nil for a real one
	rdb      redis.UniversalClient
	store    *taskstore.Store
	log      *eventlog.Log
	follower *follow.Follower
	minter   *task.Minter

	mu   sync.Mutex
	next int64 // offset in the only results partition
}

func setup(t *testing.T, p follow.Params) *bundle {
	t.Helper()
	b := prepare(t, p)
	b.run()
	return b
}

// prepare is setup without a follower that runs.
func prepare(t *testing.T, p follow.Params) *bundle {
	t.Helper()
	opt, mr := openRedis(t)
	opt.ReadTimeout, opt.DialTimeout, opt.MaxRetries, opt.ContextTimeoutEnabled = time.Second, time.Second, -1, true
	rdb := redis.NewClient(opt)
	t.Cleanup(func() { _ = rdb.Close() })
	minter, err := task.NewMinter(task.Secret{Key: []byte("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	b := &bundle{
		t: t, redis: mr, rdb: rdb, minter: minter,
		store: taskstore.New(rdb, taskstore.Params{Partitions: partitions}),
		log:   eventlog.New(rdb, eventlog.Params{Partitions: partitions, MaxLen: 1 << 20}),
	}
	if err := b.store.Rebuild(t.Context(), 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	b.follower = follow.New(b.store, b.log, p)
	return b
}

// run runs the follower until the test ends.
func (b *bundle) run() {
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = b.follower.Run(ctx) })
	b.t.Cleanup(func() { stop(); wg.Wait() })
}

func (b *bundle) id() task.ID { return b.minter.New("acme", time.Now()) }

func (b *bundle) ended(id task.ID, s task.Status, generation uint8) *terminal.Terminal {
	return &terminal.Terminal{
		SchemaVersion: 1, TaskID: id, Status: s, Generation: &generation, Tenant: "acme",
		Output: &task.Output{Text: "all of it"}, CreatedAt: time.Now(), EndedAt: time.Now(),
	}
}

// end applies a record as the projector does.
func (b *bundle) end(id task.ID, s task.Status, generation uint8) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.store.Apply(context.Background(), 0, b.next, b.next+1, []taskstore.Applied{{Terminal: b.ended(id, s, generation), Offset: b.next}}); err != nil {
		b.t.Error(err)
	}
	b.next++
}

// endUnheard makes a task end of which neither its stream nor anybody tells.
func (b *bundle) endUnheard(id task.ID) {
	b.t.Helper()
	ctx, model := context.Background(), b.id()
	b.end(model, task.Succeeded, 0)
	state, err1 := b.rdb.HGetAll(ctx, rediskey.Task(0, model)).Result()
	result, err2 := b.rdb.Get(ctx, rediskey.Result(0, model)).Result()
	err3 := b.rdb.Set(ctx, rediskey.Result(0, id), strings.ReplaceAll(result, string(model), string(id)), 0).Err()
	if err := errors.Join(err1, err2, err3, b.rdb.HSet(ctx, rediskey.Task(0, id), state).Err()); err != nil {
		b.t.Error(err)
	}
}

func (b *bundle) claim(id task.ID, f event.Fence, attempt int) {
	b.t.Helper()
	if err := b.log.Claim(context.Background(), eventlog.Claim{ID: id, Fence: f, Attempt: attempt}); err != nil {
		b.t.Error(err)
	}
}

// nonce is the log's, as its entries bear it.
func (b *bundle) nonce(id task.ID) string {
	b.t.Helper()
	entries, err := b.rdb.XRange(context.Background(), rediskey.Events(0, id), "-", "+").Result()
	if err != nil || len(entries) == 0 {
		b.t.Fatalf("%d entries, %v", len(entries), err)
	}
	nonce, _ := entries[0].Values["n"].(string)
	return nonce
}

func (b *bundle) say(id task.ID, f event.Fence, from, to uint64) {
	b.t.Helper()
	a := eventlog.Append{ID: id}
	for seq := from; seq <= to; seq++ {
		a.Events = append(a.Events, event.Event{ID: event.ID{Fence: f, Seq: seq}, Type: event.Delta, TaskID: id, Text: fmt.Sprint(seq)})
	}
	if err := b.log.Append(context.Background(), []eventlog.Append{a})[0]; err != nil {
		b.t.Error(err)
	}
}

func fence(generation uint8, group int32) event.Fence {
	f, err := event.NewFence(generation, 0, group, 0)
	if err != nil {
		panic(err)
	}
	return f
}

func line(e event.Event) string { return fmt.Sprintf("%s %s %s", e.ID, e.Type, e.Text) }

// watch reads a task's events until its end, n at a time (0: all), resuming
// after the last one each time.
func (b *bundle) watch(id task.ID, after event.ID, n func() int) []string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var out []string
	for {
		c, err := b.follower.Follow(ctx, id, after)
		if err != nil {
			b.t.Error(err)
			return out
		}
		for left := n(); left != 0; left-- {
			e, err := c.Next(ctx)
			if errors.Is(err, io.EOF) {
				c.Close()
				return out
			}
			if err != nil {
				c.Close()
				b.t.Errorf("after %s: %v", after, err)
				return out
			}
			out, after = append(out, line(e)), e.ID
		}
		c.Close()
	}
}

func all() int { return -1 }

func upTo(most int) func() int { return func() int { return 1 + rand.IntN(most) } }

// story writes a task's life: attempts of some events each, and the end. It
// returns what every watcher must see.
func (b *bundle) story(id task.ID, step func()) []string {
	want := []string{"0-1 queued "}
	for attempt := 1; attempt <= 1+rand.IntN(2); attempt++ {
		f := fence(0, int32(attempt))
		step()
		b.claim(id, f, attempt)
		kind := event.Started
		if attempt > 1 {
			kind = event.Restart
		}
		want = append(want, fmt.Sprintf("%s %s ", event.ID{Fence: f}, kind))
		for seq, most := uint64(1), uint64(rand.IntN(12)); seq <= most; {
			n := min(uint64(rand.IntN(3)), most-seq)
			step()
			b.say(id, f, seq, seq+n)
			for ; n+1 > 0; n-- {
				want = append(want, fmt.Sprintf("%s delta %d", event.ID{Fence: f, Seq: seq}, seq))
				seq++
				if n == 0 {
					break
				}
			}
		}
	}
	step()
	b.end(id, task.Succeeded, 0)
	return append(want, event.TerminalID(0).String()+" succeeded ")
}

func TestEveryWatcherSeesEveryEventOnce(t *testing.T) {
	b := setup(t, follow.Params{})
	const stories, watchers = 60, 5 // 300 joins, and many more cuts
	var wg sync.WaitGroup
	gate := make(chan struct{}, 8)
	for range stories {
		wg.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			id := b.id()
			joins := make(chan func(), watchers)
			seen := make([][]string, watchers)
			var in sync.WaitGroup
			for i := range watchers {
				joins <- func() {
					in.Go(func() {
						n := all
						if i%2 == 1 {
							n = upTo(4)
						}
						seen[i] = b.watch(id, event.ID{}, n)
					})
				}
			}
			close(joins)
			want := b.story(id, func() { // between any two writes some join
				for rand.IntN(3) == 0 {
					if join, ok := <-joins; ok {
						join()
					} else {
						return
					}
				}
			})
			for join := range joins {
				join()
			}
			in.Wait()
			for i := range seen {
				if d := cmp.Diff(want, seen[i]); d != "" {
					t.Errorf("watcher %d: %s", i, d)
				}
			}
		})
	}
	wg.Wait()
}

func TestOneStreamOfManyTasks(t *testing.T) {
	b := setup(t, follow.Params{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	want, got := map[task.ID][]string{}, map[task.ID][]string{}
	var watches []follow.Watch
	for i := range 40 {
		id := b.id()
		watches = append(watches, follow.Watch{ID: id})
		if i%4 == 0 { // ended before anybody watched
			want[id] = b.story(id, func() {})
		} else {
			want[id] = nil
		}
	}
	s, err := b.follower.FollowMany(ctx, append(watches, watches[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, w := range watches {
		if want[w.ID] == nil {
			wg.Go(func() {
				told := b.story(w.ID, func() {})
				mu.Lock()
				want[w.ID] = told
				mu.Unlock()
			})
		}
	}
	for {
		it, err := s.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		e, err := it.Event()
		if err != nil || e.TaskID != it.Task {
			t.Fatalf("event of %s is about %s: %v", it.Task, e.TaskID, err)
		}
		got[it.Task] = append(got[it.Task], line(e))
	}
	wg.Wait()
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestResumeAfterTheTerminalIsTheEnd(t *testing.T) {
	b := setup(t, follow.Params{})
	id := b.id()
	b.end(id, task.Cancelled, 0)
	if got := b.watch(id, event.TerminalID(0), all); got != nil {
		t.Errorf("got %v", got)
	}
}

func TestAStreamThatIsGoneStillEnds(t *testing.T) {
	b := setup(t, follow.Params{})
	id := b.id()
	b.claim(id, fence(0, 1), 1)
	b.end(id, task.Succeeded, 0)
	if err := b.rdb.Del(t.Context(), rediskey.Events(0, id)).Err(); err != nil {
		t.Fatal(err)
	}
	want := []string{"0-1 queued ", event.TerminalID(0).String() + " succeeded "}
	if d := cmp.Diff(want, b.watch(id, event.ID{}, all)); d != "" {
		t.Error(d)
	}
}

func TestHistoryIsReadOnlyOnceTheSubscriptionStands(t *testing.T) {
	b := prepare(t, follow.Params{})
	id := b.id()
	b.end(id, task.Succeeded, 0)
	c, err := b.follower.Follow(t.Context(), id, event.ID{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if e, err := c.Next(t.Context()); err != nil || e.Type != event.Queued {
		t.Fatalf("%+v, %v", e, err)
	}
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if e, err := c.Next(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("nobody is subscribed, and history came: %+v, %v", e, err)
	}
	b.run()
	if e, err := c.Next(t.Context()); err != nil || e.Type != event.Succeeded {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestARedriveIsFollowedInItsOwnGeneration(t *testing.T) {
	b := setup(t, follow.Params{})
	id := b.id()
	b.claim(id, fence(0, 1), 1)
	b.say(id, fence(0, 1), 1, 3)
	b.end(id, task.Dead, 0)
	before := b.watch(id, event.ID{}, all)
	if last := before[len(before)-1]; last != event.TerminalID(0).String()+" dead " {
		t.Fatalf("the first generation ended with %s", last)
	}
	b.end(id, terminal.Reopened, 1)
	b.claim(id, fence(1, 1), 1)
	b.say(id, fence(1, 1), 1, 1)
	b.end(id, task.Succeeded, 1)
	f := fence(1, 1)
	rest := []string{event.ID{Fence: f, Seq: 1}.String() + " delta 1", event.TerminalID(1).String() + " succeeded "}
	fresh := append([]string{"0-1 queued ", event.ID{Fence: f}.String() + " started "}, rest...)
	if d := cmp.Diff(fresh, b.watch(id, event.ID{}, all)); d != "" {
		t.Errorf("a new watcher: %s", d)
	}
	resumed := append([]string{event.ID{Fence: f}.String() + " restart "}, rest...)
	for _, after := range []event.ID{event.TerminalID(0), {Fence: fence(0, 1), Seq: 2}} {
		if d := cmp.Diff(resumed, b.watch(id, after, all)); d != "" {
			t.Errorf("resumed after %s: %s", after, d)
		}
	}
}

func TestALostHeadIsTold(t *testing.T) {
	b := setup(t, follow.Params{})
	id, f := b.id(), fence(0, 1)
	b.claim(id, f, 1)
	b.say(id, f, 1, 6)
	if err := b.rdb.XTrimMinID(t.Context(), rediskey.Events(0, id), "256-4").Err(); err != nil {
		t.Fatal(err)
	}
	b.end(id, task.Succeeded, 0)
	rest := []string{"256-4 delta 4", "256-5 delta 5", "256-6 delta 6", event.TerminalID(0).String() + " succeeded "}
	if d := cmp.Diff(append([]string{"0-1 queued ", "256-3 gap "}, rest...), b.watch(id, event.ID{}, all)); d != "" {
		t.Errorf("a new watcher: %s", d)
	}
	if d := cmp.Diff(append([]string{"256-3 gap "}, rest...), b.watch(id, event.ID{Fence: f, Seq: 1}, all)); d != "" {
		t.Errorf("resumed before the hole: %s", d)
	}
	if d := cmp.Diff(append([]string{"256-0 restart ", "256-3 gap "}, rest...), b.watch(id, event.ID{Fence: 9, Seq: 1}, all)); d != "" {
		t.Errorf("resumed in an older attempt: %s", d)
	}
}

func TestAHoleInWhatIsLiveIsFilledFromTheStream(t *testing.T) {
	b := setup(t, follow.Params{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	id, f := b.id(), fence(0, 1)
	b.claim(id, f, 1)
	c, err := b.follower.Follow(ctx, id, event.ID{Fence: f})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	expect := func(want ...string) {
		t.Helper()
		for _, w := range want {
			e, err := c.Next(ctx)
			if err != nil {
				t.Fatalf("want %s: %v", w, err)
			}
			if got := line(e); got != w {
				t.Fatalf("got %s, want %s", got, w)
			}
		}
	}
	b.say(id, f, 1, 1)
	expect("256-1 delta 1")
	for seq := 2; seq <= 3; seq++ { // written, but never published
		err := b.rdb.XAdd(ctx, &redis.XAddArgs{
			Stream: rediskey.Events(0, id), ID: fmt.Sprintf("256-%d", seq),
			Values: []string{"e", fmt.Sprintf(`{"type":"delta","task_id":"%s","text":"%d"}`, id, seq), "n", b.nonce(id)},
		}).Err()
		if err != nil {
			t.Fatal(err)
		}
	}
	b.say(id, f, 4, 4)
	expect("256-2 delta 2", "256-3 delta 3", "256-4 delta 4")
	b.rdb.XDel(ctx, rediskey.Events(0, id), "256-4")
	err = b.rdb.Publish(ctx, rediskey.Live(0, id), fmt.Sprintf(`256-6 {"type":"delta","task_id":"%s","text":"6"}`, id)).Err()
	if err != nil {
		t.Fatal(err)
	}
	expect("256-5 gap ", "256-6 delta 6")
}

// begun is a task that runs, and a cursor to which that was told.
func (b *bundle) begun(ctx context.Context) (task.ID, *follow.Cursor) {
	b.t.Helper()
	id := b.id()
	b.claim(id, fence(0, 1), 1)
	c, err := b.follower.Follow(ctx, id, event.ID{})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(c.Close)
	for range 2 {
		if _, err := c.Next(ctx); err != nil {
			b.t.Fatal(err)
		}
	}
	return id, c
}

func TestAWatcherThatMissedTheEndIsToldAtTheHeartbeat(t *testing.T) {
	b := setup(t, follow.Params{Heartbeat: 50 * time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	id, c := b.begun(ctx)
	err := b.rdb.XAdd(ctx, &redis.XAddArgs{
		Stream: rediskey.Events(0, id), ID: event.TerminalID(0).String(),
		Values: []string{"e", `{"type":"expired","task_id":"` + string(id) + `"}`},
	}).Err() // never published
	if err != nil {
		t.Fatal(err)
	}
	if e, err := c.Next(ctx); err != nil || e.Type != event.Expired {
		t.Errorf("got %+v, %v", e, err)
	}
}

// Of a stream that is lost the task alone knows the end, and not every beat asks.
func TestAnEndWithoutAStreamIsToldAtSomeHeartbeat(t *testing.T) {
	const beat = 50 * time.Millisecond
	b := setup(t, follow.Params{Heartbeat: beat})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	id, c := b.begun(ctx)
	<-time.After(3 * beat / 2) // past the first, which asks
	b.endUnheard(id)
	if e, err := c.Next(ctx); err != nil || e.Type != event.Succeeded {
		t.Errorf("got %+v, %v", e, err)
	}
}

func TestASlowWatcherReadsTheStreamInsteadOfTheRing(t *testing.T) {
	b := setup(t, follow.Params{Ring: 4})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	id, f := b.id(), fence(0, 1)
	b.claim(id, f, 1)
	c, err := b.follower.Follow(ctx, id, event.ID{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var got, want []string
	want = append(want, "0-1 queued ", "256-0 started ")
	for range 2 {
		e, err := c.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, line(e))
	}
	for seq := uint64(1); seq <= 50; seq++ {
		b.say(id, f, seq, seq)
		want = append(want, fmt.Sprintf("256-%d delta %d", seq, seq))
	}
	b.end(id, task.Succeeded, 0)
	want = append(want, event.TerminalID(0).String()+" succeeded ")
	for {
		e, err := c.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, line(e))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestWait(t *testing.T) {
	b := setup(t, follow.Params{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	t.Run("returns the end that was there before", func(t *testing.T) {
		id := b.id()
		b.end(id, task.Failed, 0)
		got, generation, err := b.follower.Wait(ctx, id)
		if err != nil || got.Status != task.Failed || generation != 0 {
			t.Errorf("got %+v, %d, %v", got, generation, err)
		}
	})
	t.Run("returns the end when it comes, and of the open generation only", func(t *testing.T) {
		id := b.id()
		b.end(id, task.Dead, 0)
		b.end(id, terminal.Reopened, 1)
		type result struct {
			t          *terminal.Terminal
			generation uint8
			err        error
		}
		done := make(chan result, 1)
		var wg sync.WaitGroup
		wg.Go(func() {
			got, generation, err := b.follower.Wait(ctx, id)
			done <- result{got, generation, err}
		})
		b.claim(id, fence(1, 1), 1)
		b.say(id, fence(1, 1), 1, 3)
		b.end(id, task.Succeeded, 1)
		wg.Wait()
		if r := <-done; r.err != nil || r.t.Status != task.Succeeded || r.generation != 1 {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("ends with its context", func(t *testing.T) {
		short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
		defer cancel()
		if _, _, err := b.follower.Wait(short, b.id()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestNextEndsWithItsContext(t *testing.T) {
	b := setup(t, follow.Params{})
	reason := errors.New("drained")
	ctx, cancel := context.WithCancelCause(t.Context())
	c, err := b.follower.Follow(ctx, b.id(), event.QueuedID())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cancel(reason)
	if _, err := c.Next(ctx); !errors.Is(err, reason) {
		t.Errorf("got %v", err)
	}
}
