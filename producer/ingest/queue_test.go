package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// queues is a Queues that can be down, or hang. The script of the real one, and
// its bounds, are held by the suite of taskstore.
type queues struct {
	mu      sync.Mutex
	in      map[taskstore.Queue]map[task.ID]bool
	ended   map[task.ID]bool
	asked   int
	cleaned int
	err     error // of every answer
	errOf   error // of cleaning
	hangs   bool
}

func (q *queues) answer(ctx context.Context) error {
	q.asked++
	if q.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return q.err
}

func (q *queues) Enqueue(ctx context.Context, tasks []taskstore.Waiting, limit int) ([]taskstore.Standing, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.answer(ctx); err != nil {
		return nil, err
	}
	out := make([]taskstore.Standing, len(tasks))
	for i, w := range tasks {
		out[i] = q.enqueue(w, limit)
	}
	return out, nil
}

func (q *queues) enqueue(w taskstore.Waiting, limit int) taskstore.Standing {
	members := q.in[w.Queue]
	switch {
	case members[w.ID]:
		return taskstore.WasQueued
	case len(members) >= limit:
		return taskstore.QueueFull
	case members == nil:
		q.in[w.Queue] = map[task.ID]bool{}
	}
	q.in[w.Queue][w.ID] = true
	return taskstore.Enqueued
}

func (q *queues) Dequeue(ctx context.Context, name taskstore.Queue, ids ...task.ID) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, id := range ids {
		delete(q.in[name], id)
	}
	return q.answer(ctx)
}

func (q *queues) CleanQueue(_ context.Context, name taskstore.Queue) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	looked := len(q.in[name])
	q.cleaned++
	for id := range q.in[name] {
		if q.ended[id] {
			delete(q.in[name], id)
		}
	}
	return looked, q.errOf
}

// limited has an intake where so many tasks may wait behind one key.
func limited(t *testing.T, limit int, opts ...option) (bundle, *queues) {
	t.Helper()
	q := &queues{in: map[taskstore.Queue]map[task.ID]bool{}, ended: map[task.ID]bool{}}
	b := setup(t, append(opts, func(d *ingest.Deps, p *ingest.Params) { d.Queues, p.KeyQueueLimit = q, limit })...)
	return b, q
}

func ordered(tenant, orderingKey, key string) ingest.Submission {
	r := text("chat", "a")
	r.OrderingKey = orderingKey
	s := submission(r, key)
	s.Tenant = tenant
	return s
}

func (b bundle) accept(t *testing.T, s ingest.Submission) ingest.Receipt {
	t.Helper()
	r, err := b.intake.Accept(t.Context(), s)
	if err != nil {
		t.Error(err)
	}
	return r
}

func (b bundle) refuse(t *testing.T, s ingest.Submission) {
	t.Helper()
	written := len(b.topics.ids())
	_, err := b.intake.Accept(t.Context(), s)
	if fault.CodeOf(err) != fault.Throttled || fault.RetryAfterOf(err) < time.Second || !strings.Contains(err.Error(), "nothing was accepted") {
		t.Errorf("got %v after %s; want throttled", err, fault.RetryAfterOf(err))
	}
	if n := len(b.topics.ids()); n != written {
		t.Errorf("%d records of a refused task", n-written)
	}
}

func TestASessionOrdersItsTasks(t *testing.T) {
	t.Parallel()
	submit := func(session, orderingKey string) ingest.Submission {
		s := ordered("acme", orderingKey, "")
		s.Request.SessionID = session
		return s
	}
	synctest.Test(t, func(t *testing.T) {
		b, _ := limited(t, 2)
		for _, s := range []ingest.Submission{submit("s-1", ""), submit("s-1", ""), submit("s-1", "mine"), submit("", "")} {
			b.accept(t, s)
		}
		var keys []string
		for _, tk := range b.topics.tasks {
			keys = append(keys, tk.OrderingKey)
		}
		if diff := cmp.Diff([]string{"session.s-1", "session.s-1", "mine", ""}, keys); diff != "" {
			t.Errorf("ordering keys (-want +got)\n%s", diff)
		}
		b.refuse(t, submit("s-1", ""))
		b.accept(t, submit("s-2", ""))
	})
}

func TestAFullQueueIsRefusedUntilATaskEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, q := limited(t, 2)
		first := b.accept(t, ordered("acme", "chat 1", ""))
		b.accept(t, ordered("acme", "chat 1", ""))
		b.refuse(t, ordered("acme", "chat 1", ""))
		b.accept(t, ordered("acme", "chat 2", ""))
		b.accept(t, ordered("other", "chat 1", ""))
		for range 3 {
			b.accept(t, ordered("dev", "chat 1", "")) // exempt
		}
		q.ended[first.ID] = true
		time.Sleep(10 * time.Millisecond) // inside the bubble: no real time
		b.accept(t, ordered("acme", "chat 1", ""))
		b.refuse(t, ordered("acme", "chat 1", ""))

		asked := q.asked
		b.accept(t, submission(text("chat", "no order"), ""))
		if q.asked != asked {
			t.Error("Redis is asked about a task without an ordering key")
		}
		const want = `# HELP penstock_producer_tasks_total Submitted tasks by outcome: accepted, repeated, or the fault code they were refused with.
# TYPE penstock_producer_tasks_total counter
penstock_producer_tasks_total{outcome="accepted"} 9
penstock_producer_tasks_total{outcome="throttled"} 2
`
		if err := testutil.GatherAndCompare(nonZero{b.reg}, strings.NewReader(want), "penstock_producer_tasks_total"); err != nil {
			t.Error(err)
		}
	})
}

func TestALimitOfZeroIsNone(t *testing.T) {
	t.Parallel()
	b, q := limited(t, 0)
	for range 10 {
		b.accept(t, ordered("acme", "chat", ""))
	}
	if q.asked != 0 {
		t.Errorf("Redis was asked %d times for nothing", q.asked)
	}
}

func TestARepeatOfAWaitingTaskIsNotRefused(t *testing.T) {
	t.Parallel()
	b, _ := limited(t, 1)
	first := b.accept(t, ordered("acme", "chat", "k-1"))
	b.refuse(t, ordered("acme", "chat", "k-2"))
	if again := b.accept(t, ordered("acme", "chat", "k-1")); again.ID != first.ID || !again.Repeat {
		t.Errorf("a repeat got %+v after %+v", again, first)
	}
	clear(b.memory.known) // as if the first outcome had never become known
	if again := b.accept(t, ordered("acme", "chat", "k-1")); again.ID != first.ID || again.Repeat {
		t.Errorf("the repeat of an unknown outcome got %+v after %+v", again, first)
	}
	b.refuse(t, ordered("acme", "chat", "k-2"))
}

func TestSubmitsAtOnceFillAQueueExactly(t *testing.T) {
	t.Parallel()
	b, _ := limited(t, 7)
	var in, out atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			switch _, err := b.intake.Accept(t.Context(), ordered("acme", "chat", "")); fault.CodeOf(err) {
			case fault.Throttled:
				out.Add(1)
			default:
				in.Add(1)
			}
		})
	}
	wg.Wait()
	if in.Load() != 7 || out.Load() != 43 || len(b.topics.ids()) != 7 {
		t.Errorf("%d in, %d out, %d written", in.Load(), out.Load(), len(b.topics.ids()))
	}
}

func TestWithoutRedisNoQueueIsLimited(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fail  func(*queues)
		costs time.Duration
	}{
		"down":             {func(q *queues) { q.err = errDown }, 0},
		"hung":             {func(q *queues) { q.hangs = true }, 250 * time.Millisecond},
		"lost in cleaning": {func(q *queues) { q.errOf = errDown }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b, q := limited(t, 1)
				b.accept(t, ordered("acme", "chat", ""))
				tc.fail(q)
				began, asked := time.Now(), q.asked
				for range 5 {
					b.accept(t, ordered("acme", "chat", ""))
				}
				if took := time.Since(began); took != tc.costs || q.asked != asked+1 {
					t.Errorf("took %s and %d questions", took, q.asked-asked)
				}
				q.err, q.errOf, q.hangs = nil, nil, false
				time.Sleep(1100 * time.Millisecond)
				b.refuse(t, ordered("acme", "chat", ""))
			})
		})
	}
}

func TestOnlyWhatMayBeWrittenStaysInItsQueue(t *testing.T) {
	t.Parallel()
	one := func(b bundle, s ingest.Submission) error { _, err := b.intake.Accept(t.Context(), s); return err }
	list := func(b bundle, s ingest.Submission) error {
		return b.intake.AcceptAll(t.Context(), 1, func(int) (ingest.Submission, error) { return s, nil })[0].Err
	}
	for name, accept := range map[string]func(bundle, ingest.Submission) error{"one": one, "list": list} {
		for cause, stays := range map[error]bool{tasktopic.ErrFull: false, tasktopic.ErrTooLarge: false, tasktopic.ErrUnknown: true} {
			t.Run(fmt.Sprint(name, ", ", cause), func(t *testing.T) {
				t.Parallel()
				b, q := limited(t, 1)
				name := taskstore.Queue{Tenant: "acme", OrderingKey: "chat"}
				b.topics.err = fmt.Errorf("produce: %w", cause)
				if err := accept(b, ordered("acme", "chat", "k")); !errors.Is(err, cause) {
					t.Fatal(err)
				}
				if got := len(q.in[name]) == 1; got != stays {
					t.Errorf("in its queue: %t", got)
				}
				b.topics.err = nil
				if err := accept(b, ordered("acme", "chat", "k")); err != nil {
					t.Errorf("the repeat: %v", err)
				}
				clear(b.memory.known)
				b.topics.err = tasktopic.ErrFull
				if err := accept(b, ordered("acme", "chat", "k")); !errors.Is(err, tasktopic.ErrFull) || len(q.in[name]) != 1 {
					t.Errorf("a repeat that failed, %v, took out what was there before", err)
				}
			})
		}
	}
}

func TestAListAsksOnce(t *testing.T) {
	t.Parallel()
	b, q := limited(t, 50)
	for _, r := range b.intake.AcceptAll(t.Context(), 100, func(i int) (ingest.Submission, error) { return ordered("acme", fmt.Sprint(i%3), ""), nil }) {
		if r.Err != nil {
			t.Error(r.Err)
		}
	}
	if q.asked != 1 {
		t.Errorf("Redis was asked %d times", q.asked)
	}
}

func TestAListIsLimitedItemByItem(t *testing.T) {
	t.Parallel()
	b, _ := limited(t, 2)
	keys := []string{"a", "a", "a", "b", "", "a"}
	accepted := make([]bool, len(keys))
	for i, r := range b.intake.AcceptAll(t.Context(), len(keys), func(i int) (ingest.Submission, error) { return ordered("acme", keys[i], ""), nil }) {
		accepted[i] = r.Err == nil
		if r.Err != nil && fault.CodeOf(r.Err) != fault.Throttled {
			t.Error(r.Err)
		}
	}
	if diff := cmp.Diff([]bool{true, true, false, true, true, false}, accepted); diff != "" {
		t.Error(diff)
	}
}

func TestAFullQueueIsNotCleanedForEveryRefusal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, q := limited(t, 20)
		for range 20 {
			b.accept(t, ordered("acme", "chat", ""))
		}
		for want := 1; want <= 3; want++ {
			for range 50 {
				b.refuse(t, ordered("acme", "chat", ""))
			}
			if q.cleaned != want {
				t.Errorf("cleaned %d times, want %d", q.cleaned, want)
			}
			time.Sleep(20 * time.Millisecond) // a millisecond a task
		}
	})
}
