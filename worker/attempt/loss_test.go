package attempt_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/worker/attempt"
	"github.com/penstock/penstock/worker/attempt/attempttest"
	"github.com/penstock/penstock/worker/backend"
)

var errNotOwned = errors.New("not ours")

// speak runs a try that says "0 ", "1 ", … every 10 ms, and calls at before
// each. It returns what was said.
func speak(t *testing.T, r *attempt.Runner, try *attempt.Try, words int, at func(word int)) string {
	t.Helper()
	var said strings.Builder
	res := r.Do(t.Context(), call(func(_ context.Context, items []backend.Item) []backend.Outcome {
		for i := range words {
			at(i)
			text := fmt.Sprintf("%d ", i)
			said.WriteString(text)
			items[0].Emit(backend.Piece{Text: text})
			time.Sleep(10 * time.Millisecond)
		}
		return []backend.Outcome{attempttest.OK(said.String())}
	}), []*attempt.Try{try})[0]
	if res.Err != nil {
		t.Errorf("the attempt ended with %v", res.Err)
	}
	return said.String()
}

// wholeFrom checks that a stream begins with its claim and has no hole but the
// one that a gap tells of; it returns the gaps.
func wholeFrom(t *testing.T, events []event.Event) (gaps []event.Event) {
	t.Helper()
	for i, e := range events {
		switch {
		case i == 0 && e.ID.Seq != 0, i > 0 && e.Type != event.Gap && e.ID.Seq != events[i-1].ID.Seq+1:
			t.Fatalf("event %d is %s %s", i, e.ID, e.Type)
		case e.Type == event.Gap:
			gaps = append(gaps, e)
		}
	}
	return gaps
}

func TestALostStreamIsBegunAgainOnceOwnershipIsProven(t *testing.T) {
	for name, lose := range map[string]func(*attempttest.Redis, *attempt.Try){
		"all of it is lost": func(r *attempttest.Redis, _ *attempt.Try) { r.Flush() },
		"its end is lost, as on a replica that is promoted": func(r *attempttest.Redis, try *attempt.Try) { r.Truncate(try.Task.ID, 2) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, attempt.Params{}, func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis) {
				try := newTry(1, true)
				var asked atomic.Int64
				try.Owned = func(context.Context) error {
					asked.Add(1)
					return nil
				}
				said := speak(t, r, try, 200, func(i int) {
					if i == 100 {
						lose(redis, try)
					}
				})
				if redis.Text(try.Task.ID) != said || asked.Load() != 1 {
					t.Errorf("%d questions, stream has %q of %q", asked.Load(), redis.Text(try.Task.ID), said)
				}
				if gaps := wholeFrom(t, redis.Events(try.Task.ID)); len(gaps) > 0 {
					t.Errorf("gaps %+v in a stream that was remembered whole", gaps)
				}
			})
		})
	}
}

func TestAStreamThatIsNotProvenOursIsNotBegunAgain(t *testing.T) {
	for name, owned := range map[string]func(context.Context) error{
		"the partition is another's": func(context.Context) error { return errNotOwned },
		"nobody can be asked":        nil,
		"there is no answer": func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, attempt.Params{}, func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis) {
				try := newTry(1, true)
				try.Owned = owned
				speak(t, r, try, 1000, func(i int) {
					if i == 100 {
						redis.Flush()
					}
				})
				time.Sleep(time.Minute)
				if got := redis.Events(try.Task.ID); len(got) > 0 {
					t.Errorf("it wrote %d events, the first %s %s", len(got), got[0].ID, got[0].Type)
				}
			})
		})
	}
}

func TestAnOwnerThatIsNotBelievedAtOnceAsksAgain(t *testing.T) {
	inBubble(t, attempt.Params{}, func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis) {
		try := newTry(1, true)
		var asked atomic.Int64
		try.Owned = func(context.Context) error { // as in the middle of a rebalance
			if asked.Add(1) < 5 {
				return errors.New("rebalance in progress")
			}
			return nil
		}
		said := speak(t, r, try, 400, func(i int) {
			if i == 100 {
				redis.Flush()
			}
		})
		if redis.Text(try.Task.ID) != said {
			t.Errorf("stream has %q of %q", redis.Text(try.Task.ID), said)
		}
	})
}

func TestWhatIsNotRememberedIsToldAsAGap(t *testing.T) {
	inBubble(t, attempt.Params{}, func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis) {
		const words, size, remembered = 1000, 1 << 10, 256 << 10
		try := newTry(1, true)
		r.Do(t.Context(), call(func(_ context.Context, items []backend.Item) []backend.Outcome {
			for i := range words {
				if i == words/2 {
					redis.Flush()
				}
				items[0].Emit(backend.Piece{Text: fmt.Sprintf("%0*d", size, i)})
				time.Sleep(50 * time.Millisecond)
			}
			return []backend.Outcome{attempttest.OK("all of it")}
		}), []*attempt.Try{try})
		events := redis.Events(try.Task.ID)
		gaps := wholeFrom(t, events)
		if len(gaps) != 1 || gaps[0].Reason == "" || gaps[0].TaskID != try.Task.ID || events[1].Type != event.Gap {
			t.Fatalf("gaps %+v", gaps)
		}
		// The event after the gap is the first that fits the buffer.
		if lost := gaps[0].ID.Seq; lost != words/2-remembered/size {
			t.Errorf("%d events are lost of %d, with room for %d", lost, words/2, remembered/size)
		}
		if last := events[len(events)-1]; last.ID.Seq != words || !strings.HasSuffix(last.Text, fmt.Sprint(words-1)) {
			t.Errorf("the last event is %s", last.ID)
		}
	})
}

func TestAProofHoldsUpNoOtherStream(t *testing.T) {
	inBubble(t, attempt.Params{}, func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis) {
		slow, other := newTry(1, true), newTry(2, true)
		slow.Owned = func(context.Context) error {
			time.Sleep(4 * time.Second)
			return nil
		}
		start := time.Now()
		r.Do(t.Context(), attempt.Call{Name: "b", Backend: &attempttest.Backend{Max: 2, Do: func(_ context.Context, items []backend.Item) []backend.Outcome {
			for i := range 100 {
				if i == 50 {
					redis.Flush()
				}
				for _, it := range items {
					it.Emit(backend.Piece{Text: fmt.Sprintf("%d ", i)})
				}
				time.Sleep(10 * time.Millisecond)
			}
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			if !strings.HasSuffix(redis.Text(other.Task.ID), " 99 ") {
				t.Errorf("after %s the other stream has %q", time.Since(start), redis.Text(other.Task.ID))
			}
			if n := len(redis.Events(slow.Task.ID)); n > 0 {
				t.Errorf("%d events before the proof", n)
			}
			time.Sleep(4 * time.Second)
			return []backend.Outcome{attempttest.OK("x"), attempttest.OK("x")}
		}}}, []*attempt.Try{slow, other})
		if redis.Text(slow.Task.ID) != redis.Text(other.Task.ID) {
			t.Errorf("%q and %q", redis.Text(slow.Task.ID), redis.Text(other.Task.ID))
		}
	})
}

func TestAnOldProofIsNotWrittenUpon(t *testing.T) {
	inBubble(t, attempt.Params{}, func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis) {
		try := newTry(1, true)
		var asked atomic.Int64
		try.Owned = func(context.Context) error {
			if asked.Add(1) > 1 {
				return errNotOwned
			}
			redis.Fail(errors.New("connection reset")) // and nobody can write for a while
			return nil
		}
		speak(t, r, try, 2000, func(i int) {
			switch i {
			case 100:
				redis.Flush()
			case 1000: // ten seconds later
				redis.Fail(nil)
			}
		})
		time.Sleep(time.Minute)
		if n := len(redis.Events(try.Task.ID)); n > 0 || asked.Load() < 2 {
			t.Errorf("%d events, %d questions", n, asked.Load())
		}
	})
}

func TestAZombieWritesNothing(t *testing.T) {
	older := func() *attempt.Try { return newTry(1, true) }
	for name, tc := range map[string]struct {
		asleep func(t *testing.T, redis *attempttest.Redis, newer eventlog.Claim)
		want   []event.Type
	}{
		"its successor writes": {func(t *testing.T, redis *attempttest.Redis, newer eventlog.Claim) {
			claimed(t, redis, newer)
		}, []event.Type{event.Restart}},
		"Redis was emptied, and its successor has not come yet": {func(_ *testing.T, redis *attempttest.Redis, _ eventlog.Claim) {
			redis.Flush()
		}, nil},
		"Redis was emptied before its successor came": {func(t *testing.T, redis *attempttest.Redis, newer eventlog.Claim) {
			redis.Flush()
			claimed(t, redis, newer)
		}, []event.Type{event.Restart}},
		"Redis was emptied after its successor came": {func(t *testing.T, redis *attempttest.Redis, newer eventlog.Claim) {
			claimed(t, redis, newer)
			redis.Flush()
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, attempt.Params{}, func(t *testing.T, r *attempt.Runner, redis *attempttest.Redis) {
				try := older()
				taken := false
				try.Owned = func(context.Context) error {
					if taken {
						return errNotOwned
					}
					return nil
				}
				newer := eventlog.Claim{ID: try.Task.ID, Fence: try.Fence + 1<<8, Attempt: 1}
				newer.Event = event.Event{ID: event.ID{Fence: newer.Fence}, Type: event.Restart}
				speak(t, r, try, 200, func(i int) {
					if i != 100 {
						return
					}
					synctest.Wait()
					taken = true
					tc.asleep(t, redis, newer)
				})
				time.Sleep(time.Minute)
				var after []event.Type // the takeover
				for _, e := range redis.Events(try.Task.ID) {
					if e.ID.Fence == newer.Fence {
						after = append(after, e.Type)
					} else if len(after) > 0 || len(tc.want) == 0 {
						t.Errorf("the zombie wrote %s", e.ID)
					}
				}
				if fmt.Sprint(after) != fmt.Sprint(tc.want) {
					t.Errorf("the successor's events are %v", after)
				}
			})
		})
	}
}

func claimed(t *testing.T, redis *attempttest.Redis, c eventlog.Claim) {
	t.Helper()
	if g := redis.ClaimAll(t.Context(), []eventlog.Claim{c})[0]; g.Err != nil {
		t.Error(g.Err)
	}
}
