package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/claimcheck/claimchecktest"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
	"github.com/penstock/penstock/worker/attempt"
	"github.com/penstock/penstock/worker/attempt/attempttest"
	"github.com/penstock/penstock/worker/backend"
	"github.com/penstock/penstock/worker/batch"
	"github.com/penstock/penstock/worker/consume"
	"github.com/penstock/penstock/worker/dispatch"
	"github.com/penstock/penstock/worker/route"
)

// world is a loop with everything around it faked, inside a bubble.
type world struct {
	t      *testing.T
	loop   *dispatch.Loop
	redis  *attempttest.Redis
	slots  int // of the backend; 0: one, and the test holds it until room
	held   []*route.Lease
	router *route.Router
	stop   func()
	params dispatch.Params

	mu       sync.Mutex
	log      []string // what was written and settled, in order
	ends     map[task.ID][]*terminal.Terminal
	again    []published
	letters  []deadletter.Letter
	outage   error
	refuse   map[task.Status]error
	settled  map[int64]bool
	released map[int64]bool
	revoked  bool
	offset   int64
	last     *consume.Delivery
	minter   *task.Minter
	backend  *attempttest.Backend
	early    bool          // what is published again is delivered before it is acknowledged
	ahead    time.Duration // of the brokers' clock to the machine's
	blobs    *claimchecktest.Store
}

type published struct {
	t  *task.Task
	to string
	p  task.Progress
}

func inWorld(t *testing.T, do func(ctx context.Context, items []backend.Item) []backend.Outcome, f func(w *world), change ...func(*world)) {
	synctest.Test(t, func(t *testing.T) {
		minter, err := task.NewMinter(task.Secret{Key: make([]byte, 16)})
		if err != nil {
			t.Fatal(err)
		}
		w := &world{
			t: t, redis: attempttest.NewRedis(), slots: 4, minter: minter,
			ends: map[task.ID][]*terminal.Terminal{}, settled: map[int64]bool{}, released: map[int64]bool{},
			refuse:  map[task.Status]error{},
			backend: &attempttest.Backend{Max: 8, Do: do},
			blobs:   claimchecktest.New(),
		}
		claims := claimcheck.New(w.blobs, claimcheck.Params{Limit: blobLimit})
		quiet := slog.New(slog.DiscardHandler)
		reg := prometheus.NewRegistry()
		runner := attempt.NewRunner(attempt.Params{Store: w.redis, Log: w.redis, Logger: quiet, Metrics: reg, Worker: "w", NowFunc: w.BrokerNow, Claims: claims})
		w.params = dispatch.Params{
			Pool: "default", Runner: runner, Publisher: w, Results: claims, Batch: batch.Policy{MaxTasks: 8, MaxDelay: 10 * time.Millisecond}, Log: quiet, Metrics: reg,
			Worker: "w", Group: "g", BackoffFunc: func(n int, hint time.Duration) time.Duration {
				return max(time.Second<<min(n-1, 3), hint)
			},
		}
		for _, c := range change {
			c(w)
		}
		w.router, err = route.New(route.Params{Pool: "default", Metrics: reg, Members: []route.Member{
			{Name: "b", Backend: w.backend, Concurrency: max(1, w.slots)},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if w.slots == 0 {
			l, _ := w.router.TryAcquire("m")
			w.held = append(w.held, l)
		}
		w.params.Router = w.router
		if w.loop, err = dispatch.New(w.params); err != nil {
			t.Fatal(err)
		}
		runs, endRuns := context.WithCancel(context.Background())
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { runner.Run(runs) })
		done := make(chan struct{})
		wg.Go(func() { defer close(done); w.loop.Run(ctx) })
		w.stop = sync.OnceFunc(func() { cancel(); <-done })
		f(w)
		w.stop()
		endRuns()
		wg.Wait()
	})
}

// room frees the backend's places that the test holds.
func (w *world) room() {
	for _, l := range w.held {
		l.Release()
	}
	w.held = nil
}

// Publisher.

func (w *world) write(what string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.outage != nil {
		return w.outage
	}
	w.log = append(w.log, what)
	return nil
}

func (w *world) TerminalAsync(t *terminal.Terminal, done func(tasktopic.Ack, error)) {
	w.mu.Lock()
	err := w.refuse[t.Status]
	w.mu.Unlock()
	if err == nil {
		err = w.write("terminal " + string(t.Status))
	}
	if err == nil {
		w.mu.Lock()
		w.ends[t.TaskID] = append(w.ends[t.TaskID], t)
		w.mu.Unlock()
	}
	done(tasktopic.Ack{}, err)
}

func (w *world) RepublishAsync(_ wire.Record, t *task.Task, to string, p task.Progress, done func(tasktopic.Ack, error)) {
	err := w.write("republish " + to)
	if err == nil {
		w.mu.Lock()
		w.again = append(w.again, published{t, to, p})
		w.mu.Unlock()
	}
	if w.early { // the fetch overtakes the produce
		w.deliver(t, p)
	}
	done(tasktopic.Ack{}, err)
}

func (w *world) DeadLetter(_ context.Context, _ wire.Record, l deadletter.Letter) (tasktopic.Ack, error) {
	if err := w.write("letter " + string(l.Disposition)); err != nil {
		return tasktopic.Ack{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.letters = append(w.letters, l)
	return tasktopic.Ack{}, nil
}

func (w *world) BrokerNow() time.Time { return time.Now().Add(w.ahead) }

// Holder.

func (w *world) Finish(d *consume.Delivery, settled bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if settled {
		w.settled[d.Offset] = true
		w.log = append(w.log, "settled")
		return
	}
	w.released[d.Offset] = true
}

func (w *world) Revoked(*consume.Delivery) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.revoked
}

func (w *world) ProveOwned(_ context.Context, d *consume.Delivery) error {
	if w.Revoked(d) {
		return consume.ErrNotOwned
	}
	return nil
}

// submit delivers a new task and returns it with its offset.
func (w *world) submit(change func(t *task.Task, p *task.Progress)) (*task.Task, int64) {
	t := &task.Task{
		SchemaVersion: 1, ID: w.minter.New("acme", time.Now()), Kind: task.Chat, Source: task.SourceAPI, Tenant: "acme", Model: "m",
		Class: task.Standard, Payload: task.Payload{Text: "hi"}, Timestamp: time.Now(), Deadline: time.Now().Add(time.Hour),
	}
	var p task.Progress
	if change != nil {
		change(t, &p)
	}
	return t, w.deliver(t, p)
}

func (w *world) deliver(t *task.Task, p task.Progress) int64 {
	rec, err := wire.EncodeTask(t, p, "")
	if err != nil {
		w.t.Fatal(err)
	}
	return w.deliverRaw(rec)
}

func (w *world) deliverRaw(rec wire.Record) int64 {
	w.mu.Lock()
	w.offset++
	at := w.offset
	w.mu.Unlock()
	w.last = consume.HeldBy(w, consume.Delivery{
		Record: rec, Topic: topic.Tasks("default", task.Standard), Offset: at, Group: 7,
	})
	w.loop.Deliver([]*consume.Delivery{w.last})
	return at
}

// sleep lets time pass and everything settle down.
func (w *world) sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (w *world) wrote() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.log)
}

func (w *world) expect(want ...string) {
	w.t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, w.wrote()); diff != "" {
		w.t.Errorf("what was written differs (-want +got):\n%s", diff)
	}
}

func succeed(_ context.Context, items []backend.Item) []backend.Outcome {
	out := make([]backend.Outcome, len(items))
	for i := range out {
		out[i] = attempttest.OK("ok")
	}
	return out
}

func failing(err error) func(context.Context, []backend.Item) []backend.Outcome {
	return func(_ context.Context, items []backend.Item) []backend.Outcome { return backend.Fail(len(items), err) }
}

func hanging(ctx context.Context, items []backend.Item) []backend.Outcome {
	<-items[0].Context(ctx).Done()
	return backend.Fail(len(items), items[0].Context(ctx).Err())
}

func TestASuccessSettlesOnlyOnceItsTerminalIsAcknowledged(t *testing.T) {
	inWorld(t, succeed, func(w *world) {
		w.outage = errors.New("no brokers")
		tk, offset := w.submit(nil)
		w.sleep(time.Hour - time.Minute)
		if w.settled[offset] || len(w.wrote()) > 0 {
			t.Fatal("settled without a terminal")
		}
		w.mu.Lock()
		w.outage = nil
		w.mu.Unlock()
		w.sleep(6 * time.Second)
		w.expect("terminal succeeded", "settled")
		if end := w.ends[tk.ID][0]; end.Output.Text != "ok" || end.Backend != "b" || *end.Generation != 0 || len(end.Attempts) != 1 {
			t.Errorf("terminal %+v", end)
		}
	})
}

func TestTheRetryLadderEndsInADeadLetterAndThenTheTerminal(t *testing.T) {
	runs := 0
	inWorld(t, func(_ context.Context, items []backend.Item) []backend.Outcome {
		runs++
		return backend.Fail(1, fault.New(fault.Unavailable, "500"))
	}, func(w *world) {
		tk, _ := w.submit(nil)
		w.sleep(20 * time.Second) // 1 + 2 + 4 s in memory, then 8 s go to a tier
		w.expect("republish penstock.retry.5s", "settled")
		p := w.again[0].p
		if runs != 4 || p.Attempts != 4 || p.Hop != 1 || len(p.History) != 4 || p.ReturnTopic != topic.Tasks("default", task.Standard) || p.NotBefore.IsZero() {
			t.Fatalf("after %d runs the tier got %+v", runs, p)
		}
		w.deliver(tk, p)
		w.sleep(time.Minute)
		w.expect("republish penstock.retry.5s", "settled", "letter exhausted", "terminal dead", "settled")
		l := w.letters[0]
		if runs != 5 || l.Attempts != 5 || len(l.History) != 5 || l.Code != fault.Unavailable || l.Origin.Group != "g" || l.Origin.Offset != 2 {
			t.Errorf("after %d runs the letter is %+v", runs, l)
		}
		fences := map[string]bool{}
		for _, a := range l.History {
			fences[a.Fence] = true
		}
		if len(fences) != 5 {
			t.Errorf("%d fences in 5 attempts", len(fences))
		}
	})
}

func TestAnOutageOfAnyLengthBuriesNothing(t *testing.T) {
	system := fault.New(fault.Unavailable, "connection refused")
	system.Class = fault.ClassSystem
	var up atomic.Bool
	inWorld(t, func(ctx context.Context, items []backend.Item) []backend.Outcome {
		if up.Load() {
			return succeed(ctx, items)
		}
		return backend.Fail(len(items), system)
	}, func(w *world) {
		for range 20 {
			w.submit(nil)
		}
		w.sleep(5 * time.Minute)
		w.expect()
		up.Store(true)
		w.sleep(10 * time.Second)
		if n := len(w.ends); n != 20 || len(w.letters) != 0 {
			t.Errorf("%d tasks ended, %d dead letters", n, len(w.letters))
		}
		for _, ends := range w.ends {
			if len(ends[0].Attempts) != 1 {
				t.Fatalf("the outage cost attempts: %+v", ends[0].Attempts)
			}
		}
	})
}

func TestAPoisonTaskCostsItsNeighboursNothing(t *testing.T) {
	var poison task.ID
	inWorld(t, nil, func(w *world) {
		w.backend.Do = func(_ context.Context, items []backend.Item) []backend.Outcome {
			if slices.ContainsFunc(items, func(it backend.Item) bool { return it.Task.ID == poison }) {
				return backend.Fail(len(items), fault.New(fault.Unavailable, "crash"))
			}
			return succeed(context.Background(), items)
		}
		w.submit(func(tk *task.Task, _ *task.Progress) { poison = tk.ID })
		for range 7 {
			w.submit(nil)
		}
		w.sleep(30 * time.Second)
		for id, ends := range w.ends {
			if id != poison && (ends[0].Status != task.Succeeded || len(ends[0].Attempts) != 1) {
				t.Errorf("a neighbour ended %s after %d attempts", ends[0].Status, len(ends[0].Attempts))
			}
		}
		if len(w.ends) != 7 || len(w.again) != 1 {
			t.Errorf("%d ended, %d parked; want 7 and the poison in a tier", len(w.ends), len(w.again))
		}
	})
}

func TestAQueueOfNothingButPoisonIsBuriedWhileItsBackendIsWell(t *testing.T) {
	fault500 := fault.New(fault.Unavailable, "500")
	fault500.Status = 500
	inWorld(t, failing(fault500), func(w *world) {
		for range 20 {
			w.submit(nil)
		}
		for range 20 { // what goes to a tier comes back
			w.sleep(time.Minute)
			w.mu.Lock()
			again := w.again
			w.again = nil
			w.mu.Unlock()
			for _, a := range again {
				a.p.ReturnTopic = ""
				w.deliver(a.t, a.p)
			}
		}
		if len(w.letters) != 20 || len(w.ends) != 20 {
			t.Errorf("%d dead letters and %d terminals for 20 poison tasks", len(w.letters), len(w.ends))
		}
		for _, l := range w.letters {
			if l.Attempts != attempt.MaxAttempts {
				t.Fatalf("buried after %d attempts", l.Attempts)
			}
		}
	}, func(w *world) { w.params.HealthyFunc = func(string) bool { return true } })
}

func TestWhatJoinsFromFurtherOnIsNotThrownBack(t *testing.T) {
	inWorld(t, func(context.Context, []backend.Item) []backend.Outcome {
		time.Sleep(time.Second)
		return backend.Fail(1, &fault.Error{Code: fault.Unavailable, Status: 500, RetryAfter: 6 * time.Second})
	}, func(w *world) {
		tk, _ := w.submit(nil)
		w.sleep(500 * time.Millisecond)
		// Another owner has run it, too, and published it again and again.
		w.deliver(tk, task.Progress{Hop: 2, Attempts: 2})
		w.sleep(time.Second)
		w.expect("republish penstock.retry.5s", "settled", "settled")
		if p := w.again[0].p; p.Hop != 3 || p.Attempts != 2 {
			t.Errorf("progress %+v", p)
		}
	})
}

func TestADuplicateRecordJoinsTheTaskInFlight(t *testing.T) {
	runs := 0
	inWorld(t, func(_ context.Context, items []backend.Item) []backend.Outcome {
		runs += len(items)
		time.Sleep(time.Second)
		return succeed(context.Background(), items)
	}, func(w *world) {
		tk, first := w.submit(nil)
		w.sleep(500 * time.Millisecond)
		second := w.deliver(tk, task.Progress{})
		w.sleep(time.Second)
		w.expect("terminal succeeded", "settled", "settled")
		if runs != 1 || !w.settled[first] || !w.settled[second] {
			t.Errorf("%d runs", runs)
		}
	})
}

func TestCancelStopsATaskWhereverItIs(t *testing.T) {
	t.Run("on a backend", func(t *testing.T) {
		inWorld(t, hanging, func(w *world) {
			tk, _ := w.submit(nil)
			w.sleep(time.Second)
			w.loop.Cancel(tk.ID)
			w.expect("terminal cancelled", "settled")
			if w.router.Free("m") != 4 {
				t.Error("the engine's slot was not freed")
			}
		})
	})
	t.Run("in the scheduler", func(t *testing.T) {
		inWorld(t, succeed, func(w *world) {
			tk, _ := w.submit(func(tk *task.Task, _ *task.Progress) { tk.OrderingKey = "k" })
			synctest.Wait()
			w.loop.Cancel(tk.ID)
			w.expect("terminal cancelled", "settled")
			next, _ := w.submit(func(tk *task.Task, _ *task.Progress) { tk.OrderingKey = "k" })
			w.room()
			w.sleep(time.Second)
			if len(w.ends[next.ID]) != 1 {
				t.Error("the next task of its key never ran")
			}
		}, func(w *world) { w.slots = 0 })
	})
	t.Run("in its backoff", func(t *testing.T) {
		inWorld(t, failing(fault.New(fault.Timeout, "slow")), func(w *world) {
			tk, _ := w.submit(nil)
			w.sleep(500 * time.Millisecond)
			w.loop.Cancel(tk.ID)
			w.expect("terminal cancelled", "settled")
			w.sleep(time.Minute)
			w.expect("terminal cancelled", "settled")
		})
	})
}

func TestATaskPastItsDeadlineNeverRuns(t *testing.T) {
	ran := false
	never := func(_ context.Context, items []backend.Item) []backend.Outcome {
		ran = true
		return succeed(context.Background(), items)
	}
	t.Run("when it arrives late", func(t *testing.T) {
		inWorld(t, never, func(w *world) {
			w.submit(func(tk *task.Task, _ *task.Progress) { tk.Deadline = time.Now() })
			w.sleep(2*time.Second - 1)
			w.expect() // another clock may be slow
			w.sleep(1)
			w.expect("terminal expired", "settled")
		})
	})
	t.Run("when no backend has room in time", func(t *testing.T) {
		inWorld(t, never, func(w *world) {
			w.submit(func(tk *task.Task, _ *task.Progress) { tk.Deadline = time.Now().Add(time.Minute) })
			w.sleep(62 * time.Second)
			w.expect("terminal expired", "settled")
			w.room()
			synctest.Wait()
		}, func(w *world) { w.slots = 0 })
	})
	t.Run("when it runs", func(t *testing.T) {
		inWorld(t, hanging, func(w *world) {
			w.submit(func(tk *task.Task, _ *task.Progress) { tk.Deadline = time.Now().Add(time.Minute) })
			w.sleep(62*time.Second + 10*time.Millisecond)
			w.expect("terminal expired", "settled")
		})
	})
	if ran {
		t.Error("an expired task was run")
	}
}

func TestARevokeDropsWhatHasNotStartedAndLetsTheRestFinish(t *testing.T) {
	inWorld(t, func(_ context.Context, items []backend.Item) []backend.Outcome {
		time.Sleep(10 * time.Second)
		return succeed(context.Background(), items)
	}, func(w *world) {
		_, running := w.submit(func(tk *task.Task, _ *task.Progress) { tk.Model = "a" })
		w.sleep(time.Second)
		_, waiting := w.submit(func(tk *task.Task, _ *task.Progress) { tk.Model = "b" })
		synctest.Wait()
		w.mu.Lock()
		w.revoked = true
		w.mu.Unlock()
		w.loop.Revoked()
		synctest.Wait()
		if w.released[running] || !w.released[waiting] {
			t.Errorf("released: running %t, waiting %t", w.released[running], w.released[waiting])
		}
		w.sleep(20 * time.Second)
		w.expect("terminal succeeded", "settled")
	}, func(w *world) { w.slots = 1 })
}

func TestADrainLetsWorkFinishAndHandsBackTheRest(t *testing.T) {
	inWorld(t, func(ctx context.Context, items []backend.Item) []backend.Outcome {
		if items[0].Task.Model == "stuck" {
			return hanging(ctx, items)
		}
		time.Sleep(10 * time.Second)
		return succeed(context.Background(), items)
	}, func(w *world) {
		_, running := w.submit(func(tk *task.Task, _ *task.Progress) { tk.Model = "slow" })
		_, stuck := w.submit(func(tk *task.Task, _ *task.Progress) { tk.Model = "stuck" })
		w.sleep(time.Second)
		_, queued := w.submit(nil)
		w.sleep(time.Second)
		start := time.Now()
		w.stop()
		if took := time.Since(start); took < 25*time.Second || took > 26*time.Second {
			t.Errorf("drain took %s, want the grace of 25 s", took)
		}
		if !w.settled[running] || w.settled[stuck] || !w.released[stuck] || !w.released[queued] {
			t.Errorf("settled %v, released %v", w.settled, w.released)
		}
		w.expect("terminal succeeded", "settled")
	}, func(w *world) { w.slots = 2 })
}

func TestADrainKeepsTheCountOfAttempts(t *testing.T) {
	inWorld(t, failing(fault.New(fault.Timeout, "slow")), func(w *world) {
		w.submit(nil)
		w.sleep(100 * time.Millisecond) // it waits for its second attempt
		w.stop()
		w.expect("republish penstock.tasks.default.standard", "settled")
		if p := w.again[0].p; p.Attempts != 1 || p.Hop != 1 || time.Until(p.NotBefore) <= 0 {
			t.Errorf("progress %+v", p)
		}
	})
}

func TestNotBeforeIsWaitedForInMemory(t *testing.T) {
	inWorld(t, succeed, func(w *world) {
		w.submit(func(_ *task.Task, p *task.Progress) { p.Hop, p.NotBefore = 1, time.Now().Add(3*time.Second) })
		w.sleep(3*time.Second - 1)
		w.expect()
		w.sleep(20 * time.Millisecond)
		w.expect("terminal succeeded", "settled")
	})
}

func TestTasksOfOneKeyRunInOrderThroughRetries(t *testing.T) {
	for name, c := range map[string]struct {
		failures int
		end      string
	}{
		"to a success":                 {4, "terminal succeeded"},
		"and a dead one frees its key": {5, "terminal dead"},
	} {
		t.Run(name, func(t *testing.T) { runKey(t, c.failures, c.end) })
	}
}

// runKey runs three tasks of one key, the second of which fails a few times and
// ends in one way.
func runKey(t *testing.T, failures int, end string) {
	var order []string
	inWorld(t, nil, func(w *world) {
		w.backend.Do = func(_ context.Context, items []backend.Item) []backend.Outcome {
			for _, it := range items {
				order = append(order, it.Task.Payload.Text)
			}
			if failures > 0 && items[0].Task.Payload.Text == "1" {
				failures--
				return backend.Fail(len(items), fault.New(fault.Timeout, "slow"))
			}
			return succeed(context.Background(), items)
		}
		for i := range 3 {
			w.submit(func(tk *task.Task, _ *task.Progress) {
				tk.OrderingKey, tk.Payload.Text = "chat", fmt.Sprint(i)
			})
		}
		w.sleep(time.Minute)
		if diff := cmp.Diff([]string{"0", "1", "1", "1", "1", "1", "2"}, order); diff != "" {
			t.Error(diff)
		}
		if wrote := w.wrote(); len(w.again) != 0 || len(w.ends) != 3 || !slices.Contains(wrote, end) {
			t.Errorf("%d republished, %d ended: %v", len(w.again), len(w.ends), wrote)
		}
	})
}

func TestAResultTooLargeForTheTopicFailsWithAReason(t *testing.T) {
	inWorld(t, succeed, func(w *world) {
		w.refuse[task.Succeeded] = fmt.Errorf("produce: %w", tasktopic.ErrTooLarge)
		tk, _ := w.submit(nil)
		w.sleep(time.Second)
		w.expect("terminal failed", "settled")
		if end := w.ends[tk.ID][0]; end.Error == nil || end.Error.Code != fault.TooLarge || end.Output != nil {
			t.Errorf("terminal %+v", end)
		}
	})
}

func TestAnUndecodableRecordIsBuriedAndSettled(t *testing.T) {
	inWorld(t, succeed, func(w *world) {
		id := w.minter.New("acme", time.Now())
		w.deliverRaw(wire.Record{Key: []byte(id), Value: []byte("{"), Headers: []wire.Header{{Key: wire.HeaderTenant, Value: []byte("acme")}}})
		w.expect("letter undecodable", "terminal dead", "settled")
		w.deliverRaw(wire.Record{Key: []byte("?"), Value: []byte("{")})
		w.expect("letter undecodable", "terminal dead", "settled", "letter undecodable", "settled")
	})
}

func TestATaskThatEndedElsewhereSettlesWithoutARun(t *testing.T) {
	inWorld(t, func(context.Context, []backend.Item) []backend.Outcome { panic("must not run") }, func(w *world) {
		tk, _ := w.submit(func(tk *task.Task, _ *task.Progress) { tk.Model = "x" })
		w.redis.SetState(tk.ID, terminal.State{Status: task.Cancelled})
		w.room()
		w.sleep(time.Second)
		w.expect("settled")
	}, func(w *world) { w.slots = 0 })
}

func TestABlockedHeadIsParkedOnlyWhileItWaits(t *testing.T) {
	for _, tc := range []struct {
		name  string
		slots int
		key   string
		want  []string
	}{
		{"a waiting head goes to a tier", 0, "", []string{"republish penstock.retry.5s", "settled"}},
		{"a running one stays", 1, "", nil},
		{"one with an order to keep stays", 0, "k", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, hanging, func(w *world) {
				w.submit(func(tk *task.Task, _ *task.Progress) { tk.OrderingKey = tc.key })
				w.sleep(3 * time.Second)
				w.expect(tc.want...)
			}, func(w *world) {
				w.slots = tc.slots
				w.params.BlockedFunc = func() []*consume.Delivery { return []*consume.Delivery{w.last} }
			})
		})
	}
}
