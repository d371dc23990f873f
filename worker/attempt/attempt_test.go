package attempt_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/wire"
	"github.com/penstock/penstock/worker/attempt"
	"github.com/penstock/penstock/worker/attempt/attempttest"
	"github.com/penstock/penstock/worker/backend"
)

func TestDecide(t *testing.T) {
	system := fault.New(fault.Unavailable, "connection refused")
	system.Class = fault.ClassSystem
	for _, tc := range []struct {
		name   string
		n      int
		err    error
		next   attempt.Next
		counts bool
	}{
		{"a success", 1, nil, attempt.Succeed, true},
		{"a refused input is final at once", 1, fault.New(fault.Rejected, ""), attempt.Fail, true},
		{"a 5xx is tried again", 1, fault.New(fault.Unavailable, ""), attempt.Retry, true},
		{"a 5xx at the last attempt is death", attempt.MaxAttempts, fault.New(fault.Unavailable, ""), attempt.Bury, true},
		{"a refused connection costs nothing", attempt.MaxAttempts, system, attempt.Requeue, false},
		{"a 429 costs nothing", attempt.MaxAttempts, fault.New(fault.Throttled, ""), attempt.Requeue, false},
		{"bad credentials cost the task nothing", 3, fault.New(fault.Unauthorized, ""), attempt.Requeue, false},
		{"a timeout counts", 4, fault.New(fault.Timeout, ""), attempt.Retry, true},
		{"a drain costs nothing", 2, fault.New(fault.Interrupted, ""), attempt.Requeue, false},
		{"a cancel ends", 2, fault.New(fault.Cancelled, ""), attempt.Cancel, false},
		{"a deadline ends", 2, fault.New(fault.Expired, ""), attempt.Expire, false},
		{"nonsense is buried", 1, fault.New(fault.Malformed, ""), attempt.Bury, false},
		{"an error nobody classified counts", 1, errors.New("boom"), attempt.Retry, true},
		{"a large result is final", 1, fault.New(fault.TooLarge, ""), attempt.Fail, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if v := attempt.Decide(tc.n, tc.err); v.Next != tc.next || v.Counts != tc.counts {
				t.Errorf("got %s counts=%t, want %s counts=%t", v.Next, v.Counts, tc.next, tc.counts)
			}
		})
	}
}

const deadline = time.Hour

func newTry(n int, stream bool) *attempt.Try {
	id := task.ID(fmt.Sprintf("task_%048d", n))
	fence, _ := event.NewFence(0, 0, 7, 0)
	return &attempt.Try{
		Task: &task.Task{ID: id, Model: "m", Kind: task.Chat, Tenant: "t", Stream: stream, Deadline: time.Now().Add(deadline)}, Fence: fence, N: 1,
		Owned: func(context.Context) error { return nil },
	}
}

func tries(n int) []*attempt.Try {
	out := make([]*attempt.Try, n)
	for i := range out {
		out[i] = newTry(i, false)
	}
	return out
}

// inBubble runs a test with a runner in fake time.
func inBubble(t *testing.T, p attempt.Params, f func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis)) {
	synctest.Test(t, func(t *testing.T) {
		redis := attempttest.NewRedis()
		p.Store, p.Log, p.Logger, p.Metrics, p.Worker = redis, redis, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), "w"
		r := attempt.NewRunner(p)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { r.Run(ctx); close(done) }()
		f(t, r, redis)
		cancel()
		<-done
	})
}

func call(do func(ctx context.Context, items []backend.Item) []backend.Outcome) attempt.Call {
	return attempt.Call{Backend: &attempttest.Backend{Max: 64, Do: do}, Name: "b"}
}

func TestABatchIsBisectedUntilTheCulpritIsAlone(t *testing.T) {
	inBubble(t, attempt.Params{}, func(t *testing.T, r *attempt.Runner, _ *attempttest.Redis) {
		ts := tries(32)
		poison := ts[13].Task.ID
		calls := 0
		results := r.Do(t.Context(), call(func(_ context.Context, items []backend.Item) []backend.Outcome {
			calls++
			out := make([]backend.Outcome, len(items))
			for i, it := range items {
				if it.Task.ID == poison {
					return backend.Fail(len(items), fault.New(fault.Unavailable, "engine crashed"))
				}
				out[i] = attempttest.OK("ok")
			}
			return out
		}), ts)
		for i, res := range results {
			if (res.Err != nil) != (i == 13) {
				t.Errorf("task %d: err %v", i, res.Err)
			}
		}
		if calls != 11 { // 1 + 2 per level of 5
			t.Errorf("%d calls, want 11", calls)
		}
	})
}

// TestNobodyBearsTheFaultOfANeighbourWhoWasCancelled has a call fail for all while
// one of them, the culprit or not, comes to an end of its own.
func TestNobodyBearsTheFaultOfANeighbourWhoWasCancelled(t *testing.T) {
	const culprit, innocent = 1, 3
	for name, test := range map[string]struct {
		n, ends int
		cause   error
		calls   int
	}{
		"an innocent is cancelled":   {4, innocent, attempt.ErrCallerCancelled, 6}, // all, the other three, then by halves
		"the culprit is cancelled":   {4, culprit, attempt.ErrCallerCancelled, 2},
		"of two":                     {2, culprit, attempt.ErrCallerCancelled, 2},
		"the culprit is interrupted": {4, culprit, fault.New(fault.Fenced, "not ours any more"), 2},
		"an innocent is interrupted": {4, innocent, fault.New(fault.Interrupted, "given away"), 6},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, attempt.Params{}, func(t *testing.T, r *attempt.Runner, _ *attempttest.Redis) {
				ts := tries(test.n)
				calls := 0
				results := r.Do(t.Context(), call(func(_ context.Context, items []backend.Item) []backend.Outcome {
					if calls++; calls == 1 {
						ts[test.ends].Cancel(test.cause)
					}
					out := make([]backend.Outcome, len(items))
					for i, it := range items {
						if it.Task.ID == ts[culprit].Task.ID {
							return backend.Fail(len(items), fault.New(fault.Rejected, "no such parameter"))
						}
						out[i] = attempttest.OK("ok")
					}
					return out
				}), ts)
				for i, res := range results {
					var want fault.Code
					switch i {
					case test.ends:
						want = fault.CodeOf(test.cause)
					case culprit:
						want = fault.Rejected
					}
					if got := fault.CodeOf(res.Err); got != want && (want != "" || res.Err != nil) {
						t.Errorf("task %d: %q (%v), want %q", i, got, res.Err, want)
					}
				}
				if calls != test.calls {
					t.Errorf("%d calls, want %d", calls, test.calls)
				}
			})
		})
	}
}

func TestABatchIsNotSplitForTroubleThatIsNotItsOwn(t *testing.T) {
	inBubble(t, attempt.Params{}, func(t *testing.T, r *attempt.Runner, _ *attempttest.Redis) {
		t.Log("a system fault")
		calls := 0
		c := call(func(_ context.Context, items []backend.Item) []backend.Outcome {
			calls++
			return backend.Fail(len(items), fault.New(fault.Throttled, "slow down"))
		})
		for _, res := range r.Do(t.Context(), c, tries(8)) {
			if fault.CodeOf(res.Err) != fault.Throttled || calls != 1 {
				t.Fatalf("err %v after %d calls", res.Err, calls)
			}
		}
		t.Log("a breaker that opened: the neighbours are given back for free")
		calls = 0
		c = call(func(_ context.Context, items []backend.Item) []backend.Outcome {
			calls++
			return backend.Fail(len(items), fault.New(fault.Unavailable, "500"))
		})
		c.Open = func() bool { return false }
		for _, res := range r.Do(t.Context(), c, tries(8)) {
			if fault.ClassOf(res.Err) != fault.ClassSystem || calls != 1 {
				t.Fatalf("class %s after %d calls", fault.ClassOf(res.Err), calls)
			}
		}
	})
}

func TestTasksThatHaveEndedAreNotRun(t *testing.T) {
	inBubble(t, attempt.Params{}, func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis) {
		ts := tries(3)
		redis.SetState(ts[0].Task.ID, terminal.State{Status: task.Cancelled})
		redis.SetState(ts[1].Task.ID, terminal.State{Generation: 1})
		var ran []task.ID
		results := r.Do(t.Context(), call(func(_ context.Context, items []backend.Item) []backend.Outcome {
			for _, it := range items {
				ran = append(ran, it.Task.ID)
			}
			return []backend.Outcome{attempttest.OK("ok")}
		}), ts)
		if !results[0].Moot || !results[1].Moot || results[2].Moot {
			t.Errorf("moot: %t %t %t", results[0].Moot, results[1].Moot, results[2].Moot)
		}
		if diff := cmp.Diff([]task.ID{ts[2].Task.ID}, ran); diff != "" {
			t.Error(diff)
		}
	})
}

func TestASlowOrMissingRedisDelaysAndStopsNothing(t *testing.T) {
	for name, breakIt := range map[string]func(*attempttest.Redis){
		"away":    func(r *attempttest.Redis) { r.Fail(errors.New("connection refused")) },
		"hanging": func(r *attempttest.Redis) { r.Hang(true) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, attempt.Params{}, func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis) {
				breakIt(redis)
				start := time.Now()
				results := r.Do(t.Context(), call(func(_ context.Context, items []backend.Item) []backend.Outcome {
					items[0].Emit(backend.Piece{Text: "x"})
					return []backend.Outcome{attempttest.OK("ok")}
				}), []*attempt.Try{newTry(1, true)})
				if results[0].Err != nil || time.Since(start) > 500*time.Millisecond {
					t.Errorf("err %v after %s", results[0].Err, time.Since(start))
				}
			})
		})
	}
}

func TestBatchesDoNotWaitForARedisThatIsAwayEachAnew(t *testing.T) {
	inBubble(t, attempt.Params{}, func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis) {
		run := func(batches int) time.Duration {
			start := time.Now()
			for range batches {
				results := r.Do(t.Context(), call(func(context.Context, []backend.Item) []backend.Outcome {
					time.Sleep(100 * time.Millisecond)
					return []backend.Outcome{attempttest.OK("ok")}
				}), []*attempt.Try{newTry(1, false)})
				if results[0].Err != nil {
					t.Error(results[0].Err)
				}
			}
			return time.Since(start)
		}
		well := run(100)
		redis.Hang(true)
		if away := run(100); away > well*5/4+500*time.Millisecond {
			t.Errorf("100 batches take %s, and %s without Redis", well, away)
		}
		redis.Hang(false)
		time.Sleep(time.Second)
		back := newTry(1, true)
		r.Do(t.Context(), call(func(context.Context, []backend.Item) []backend.Outcome {
			return []backend.Outcome{attempttest.OK("ok")}
		}), []*attempt.Try{back})
		if len(redis.Events(back.Task.ID)) == 0 {
			t.Error("nothing is claimed when it is back")
		}
	})
}

func TestTokensAreCoalescedInOrderWithoutHoles(t *testing.T) {
	inBubble(t, attempt.Params{}, func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis) {
		try := newTry(1, true)
		var want strings.Builder
		r.Do(t.Context(), call(func(_ context.Context, items []backend.Item) []backend.Outcome {
			for i := range 500 {
				text := fmt.Sprintf("%d ", i)
				want.WriteString(text)
				items[0].Emit(backend.Piece{Text: text})
				time.Sleep(2 * time.Millisecond)
				if i == 0 {
					synctest.Wait()
					if redis.Text(try.Task.ID) != "0 " {
						t.Error("the first piece did not go out at once")
					}
				}
			}
			return []backend.Outcome{attempttest.OK(want.String())}
		}), []*attempt.Try{try})
		// Not a moment later: a terminal that overtook them would shut them out.
		if got := redis.Text(try.Task.ID); got != want.String() {
			t.Errorf("stream has %d bytes of %d when the attempt is over", len(got), want.Len())
		}
		if n := redis.Writes(); n < 20 || n > 60 {
			t.Errorf("%d writes for 1 s of tokens, want about 25", n)
		}
		for i, e := range redis.Events(try.Task.ID) {
			if e.ID.Seq != uint64(i) || e.ID.Fence != try.Fence {
				t.Fatalf("event %d has id %s", i, e.ID)
			}
		}
	})
}

// emitted is what the stream of a try shows right after each piece.
func emitted(t *testing.T, p attempt.Params, pieces ...string) (shown []string) {
	inBubble(t, p, func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis) {
		try := newTry(1, true)
		r.Do(t.Context(), call(func(_ context.Context, items []backend.Item) []backend.Outcome {
			for _, text := range pieces {
				items[0].Emit(backend.Piece{Text: text})
				synctest.Wait()
				shown = append(shown, redis.Text(try.Task.ID))
			}
			return []backend.Outcome{attempttest.OK(strings.Join(pieces, ""))}
		}), []*attempt.Try{try})
	})
	return shown
}

func TestTheFirstPieceAndAFullKiBDoNotWait(t *testing.T) {
	half := strings.Repeat("x", 512)
	want := []string{"a", "a", "a" + half + half, "a" + half + half}
	if diff := cmp.Diff(want, emitted(t, attempt.Params{}, "a", half, half, "b")); diff != "" {
		t.Errorf("shown after each piece (-want +got)\n%s", diff)
	}
}

func TestNoPieceWaitsLongerThanTheInterval(t *testing.T) {
	const every = 40 * time.Millisecond
	inBubble(t, attempt.Params{TokenEvery: every}, func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis) {
		try, text := newTry(1, true), ""
		r.Do(t.Context(), call(func(_ context.Context, items []backend.Item) []backend.Outcome {
			time.Sleep(7 * time.Millisecond) // out of step with any tick
			for n := range 20 {
				for range 2 { // the first goes out at once, the second waits, and no third carries it along
					items[0].Emit(backend.Piece{Text: "x"})
					text += "x"
					time.Sleep(time.Millisecond)
				}
				time.Sleep(every)
				if got := redis.Text(try.Task.ID); got != text {
					t.Errorf("%d of %d pieces are written an interval after the last", len(got), len(text))
				}
				time.Sleep(time.Duration(n) * time.Millisecond)
			}
			return []backend.Outcome{attempttest.OK(text)}
		}), []*attempt.Try{try})
	})
}

func TestAnIntervalOfNothingGathersNothing(t *testing.T) {
	if diff := cmp.Diff([]string{"a", "ab", "abc"}, emitted(t, attempt.Params{TokenEvery: -1}, "a", "b", "c")); diff != "" {
		t.Errorf("shown after each piece (-want +got)\n%s", diff)
	}
}

func TestWhatIsNoTextIsAnEventOfItsOwn(t *testing.T) {
	inBubble(t, attempt.Params{}, func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis) {
		try := newTry(1, true)
		r.Do(t.Context(), call(func(_ context.Context, items []backend.Item) []backend.Outcome {
			items[0].Emit(backend.Piece{Text: "at once"})
			synctest.Wait() // what follows is gathered
			for _, p := range []backend.Piece{
				{Text: "a"}, {Text: "b"}, {Text: "c", Choice: []byte(`{"logprobs":{}}`)}, {Text: "d"}, {Choice: []byte(`{"delta":{}}`)}, {}, {Text: "e"},
			} {
				items[0].Emit(p)
			}
			return []backend.Outcome{attempttest.OK("at onceabcde")}
		}), []*attempt.Try{try})
		var got []string
		for _, e := range redis.Events(try.Task.ID)[1:] {
			got = append(got, e.Text+string(e.Choice))
		}
		if diff := cmp.Diff([]string{"at once", "ab", `c{"logprobs":{}}`, "d", `{"delta":{}}`, "e"}, got); diff != "" {
			t.Errorf("events (-want +got)\n%s", diff)
		}
	})
}

func TestTokensSurviveAnOutageAndALossOfRedis(t *testing.T) {
	inBubble(t, attempt.Params{}, func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis) {
		try := newTry(1, true)
		var want strings.Builder
		results := r.Do(t.Context(), call(func(_ context.Context, items []backend.Item) []backend.Outcome {
			for i := range 1000 {
				switch i {
				case 200:
					redis.Fail(errors.New("connection reset"))
				case 400:
					redis.Fail(nil)
				case 700:
					redis.Flush()
				}
				text := fmt.Sprintf("%d ", i)
				want.WriteString(text)
				items[0].Emit(backend.Piece{Text: text})
				time.Sleep(2 * time.Millisecond)
			}
			return []backend.Outcome{attempttest.OK(want.String())}
		}), []*attempt.Try{try})
		time.Sleep(time.Second)
		if results[0].Err != nil || redis.Text(try.Task.ID) != want.String() {
			t.Errorf("err %v, stream has %d bytes of %d", results[0].Err, len(redis.Text(try.Task.ID)), want.Len())
		}
	})
}

func TestARefusedWriterGoesOnWithoutTokens(t *testing.T) {
	inBubble(t, attempt.Params{}, func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis) {
		try := newTry(1, true)
		newer := newTry(1, true)
		newer.Fence++
		results := r.Do(t.Context(), call(func(_ context.Context, items []backend.Item) []backend.Outcome {
			items[0].Emit(backend.Piece{Text: "old "})
			time.Sleep(time.Second)
			r.Do(t.Context(), call(func(_ context.Context, items []backend.Item) []backend.Outcome {
				items[0].Emit(backend.Piece{Text: "new"})
				return []backend.Outcome{attempttest.OK("new")}
			}), []*attempt.Try{newer})
			items[0].Emit(backend.Piece{Text: "zombie"})
			time.Sleep(time.Second)
			return []backend.Outcome{attempttest.OK("old zombie")}
		}), []*attempt.Try{try})
		if results[0].Err != nil {
			t.Errorf("the refused attempt ended with %v", results[0].Err)
		}
		if got := redis.Text(try.Task.ID); got != "new" {
			t.Errorf("the stream says %q, want what the newer fence wrote", got)
		}
	})
}

func TestEveryEndOfATryHasItsOwnFault(t *testing.T) {
	hang := func(ctx context.Context, items []backend.Item) []backend.Outcome {
		c := items[0].Context(ctx)
		<-c.Done()
		return backend.Fail(1, fmt.Errorf("post: %w", c.Err()))
	}
	for _, tc := range []struct {
		name   string
		do     func(ctx context.Context, items []backend.Item) []backend.Outcome
		setup  func(t *attempt.Try, cancel context.CancelCauseFunc)
		stream bool
		want   fault.Code
		after  time.Duration
	}{
		{"the attempt's timeout", hang, func(*attempt.Try, context.CancelCauseFunc) {}, false, fault.Timeout, 2 * time.Minute},
		{"the task's deadline", hang, func(t *attempt.Try, _ context.CancelCauseFunc) {
			t.Task.Deadline = time.Now().Add(time.Minute)
		}, false, fault.Expired, time.Minute},
		{"the caller", hang, func(t *attempt.Try, _ context.CancelCauseFunc) {
			time.AfterFunc(time.Second, func() { t.Cancel(attempt.ErrCallerCancelled) })
		}, false, fault.Cancelled, time.Second},
		{"a cancel before it started", hang, func(t *attempt.Try, _ context.CancelCauseFunc) { t.Cancel(attempt.ErrCallerCancelled) }, false, fault.Cancelled, 0},
		{"the end of the worker", hang, func(_ *attempt.Try, cancel context.CancelCauseFunc) {
			time.AfterFunc(time.Second, func() { cancel(attempt.ErrDraining) })
		}, false, fault.Interrupted, time.Second},
		{"silence in the middle of a stream", func(ctx context.Context, items []backend.Item) []backend.Outcome {
			items[0].Emit(backend.Piece{Text: "x"})
			return hang(ctx, items)
		}, func(*attempt.Try, context.CancelCauseFunc) {}, true, fault.Timeout, 30 * time.Second},
		{
			"a panic of the adapter", func(context.Context, []backend.Item) []backend.Outcome { panic("boom") },
			func(*attempt.Try, context.CancelCauseFunc) {}, false, fault.Internal, 0,
		},
		{
			"an answer of the wrong size", func(context.Context, []backend.Item) []backend.Outcome { return nil },
			func(*attempt.Try, context.CancelCauseFunc) {}, false, fault.Internal, 0,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, attempt.Params{}, func(t *testing.T, r *attempt.Runner, _ *attempttest.Redis) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				try := newTry(1, tc.stream)
				tc.setup(try, cancel)
				start := time.Now()
				res := r.Do(ctx, call(tc.do), []*attempt.Try{try})[0]
				if got := fault.CodeOf(res.Err); got != tc.want || time.Since(start) != tc.after {
					t.Errorf("%s after %s, want %s after %s", got, time.Since(start), tc.want, tc.after)
				}
			})
		})
	}
}

func TestALetterKeepsLineageAndNoPayload(t *testing.T) {
	tr := newTry(1, false)
	p := task.Progress{Attempts: 5, Generation: 2, History: []task.Attempt{{N: 5}}}
	rec := wire.Record{Key: []byte(tr.Task.ID), Value: []byte("payload")}
	l := attempt.Letter(tr.Task, p, rec, fmt.Errorf("wrapped: %w", fault.New(fault.Timeout, "too slow")), time.Now())
	if l.Disposition != deadletter.Exhausted || l.Code != fault.Timeout || l.Message != "too slow" || l.Attempts != 5 || l.Generation != 2 || len(l.SHA256) != 64 {
		t.Errorf("letter %+v", l)
	}
	if l := attempt.Letter(tr.Task, p, rec, errors.New("secret payload"), time.Now()); strings.Contains(l.Message, "secret") {
		t.Errorf("an unclassified error's text reached the letter: %q", l.Message)
	}
}

func TestAnUndecodableRecordEndsItsTaskOnlyIfItSaysWhich(t *testing.T) {
	id := task.ID("task_" + strings.Repeat("0", 48))
	full := wire.Record{Key: []byte(id), Value: []byte("{"), Headers: []wire.Header{
		{Key: wire.HeaderTenant, Value: []byte("acme")}, {Key: wire.HeaderGeneration, Value: []byte("3")},
	}}
	l, end := attempt.Undecodable(full, time.Now())
	if end == nil || end.TaskID != id || *end.Generation != 3 || end.Status != task.Dead || l.TaskID != id {
		t.Errorf("letter %+v, terminal %+v", l, end)
	}
	for name, rec := range map[string]wire.Record{
		"no tenant":           {Key: full.Key, Headers: full.Headers[1:]},
		"a key that is no id": {Key: []byte("x"), Headers: full.Headers},
		"a broken generation": {Key: full.Key, Headers: []wire.Header{full.Headers[0], {Key: wire.HeaderGeneration, Value: []byte("999")}}},
	} {
		if _, end := attempt.Undecodable(rec, time.Now()); end != nil {
			t.Errorf("%s: got a terminal", name)
		}
	}
}
