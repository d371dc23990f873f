package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/attempt/attempttest"
	"github.com/penstock/penstock/worker/backend"
)

// blobLimit is the largest content, as JSON, of the store in these tests.
const blobLimit = 1 << 20

// answering answers every task with a text of n bytes.
func answering(n int) func(context.Context, []backend.Item) []backend.Outcome {
	return func(_ context.Context, items []backend.Item) []backend.Outcome {
		out := make([]backend.Outcome, len(items))
		for i := range out {
			out[i] = attempttest.OK(strings.Repeat("x", n))
		}
		return out
	}
}

// counted counts the tasks that run.
func counted(do func(context.Context, []backend.Item) []backend.Outcome) (_ func(context.Context, []backend.Item) []backend.Outcome, runs *atomic.Int64) {
	runs = new(atomic.Int64)
	return func(ctx context.Context, items []backend.Item) []backend.Outcome {
		runs.Add(int64(len(items)))
		return do(ctx, items)
	}, runs
}

// refer makes a task leave its payload in the store.
func (w *world) refer(content string) func(*task.Task, *task.Progress) {
	return func(t *task.Task, _ *task.Progress) {
		ref := w.blobs.Hold(content)
		t.Payload = task.Payload{Ref: &ref}
	}
}

func TestOnlyLargeResultsLeaveTheTerminal(t *testing.T) {
	for _, n := range []int{claimcheck.Inline - 1, claimcheck.Inline, claimcheck.Inline + 1} {
		inWorld(t, answering(n), func(w *world) {
			tk, _ := w.submit(nil)
			w.expectSoon("terminal succeeded", "settled")
			end := w.ends[tk.ID][0]
			if leaves := n > claimcheck.Inline; leaves != (end.OutputRef != nil) || leaves == (end.Output != nil) {
				t.Fatalf("%d bytes: output %t, reference %v", n, end.Output != nil, end.OutputRef)
			}
			if leaves := n > claimcheck.Inline; leaves != (end.FinishReason != "") || end.Finish() != "stop" {
				t.Errorf("%d bytes: its end is told as %q, the terminal's own is %q", n, end.Finish(), end.FinishReason)
			}
			if stored := w.blobs.Content(end.OutputRef); end.OutputRef != nil && !strings.Contains(stored, strings.Repeat("x", n)) {
				t.Errorf("%d bytes: the store has %d", n, len(stored))
			}
		})
	}
}

func (w *world) expectSoon(want ...string) {
	w.t.Helper()
	w.sleep(time.Second)
	w.expect(want...)
}

func TestALargeResultWaitsForItsStore(t *testing.T) {
	do, runs := counted(answering(claimcheck.Inline + 1))
	inWorld(t, do, func(w *world) {
		w.blobs.Fail(blob.ErrUnavailable)
		tk, offset := w.submit(nil)
		w.sleep(30 * time.Minute)
		if w.settled[offset] || len(w.wrote()) > 0 || runs.Load() != 1 {
			t.Fatalf("after %d runs: %v", runs.Load(), w.wrote())
		}
		w.blobs.Fail(nil)
		w.sleep(15 * time.Second)
		w.expect("terminal succeeded", "settled")
		if end := w.ends[tk.ID][0]; end.Output != nil || w.blobs.Content(end.OutputRef) == "" {
			t.Errorf("terminal %+v", end)
		}
	})
}

func TestAResultBeyondEveryLimitFailsItsTaskAlone(t *testing.T) {
	t.Run("of the store", func(t *testing.T) {
		frame := len(`{"text":"","finish_reason":"stop"}`)
		for n, want := range map[int]task.Status{
			blobLimit - frame - 1: task.Succeeded, blobLimit - frame: task.Succeeded, blobLimit - frame + 1: task.Failed,
		} {
			inWorld(t, answering(n), func(w *world) {
				tk, offset := w.submit(nil)
				w.expectSoon("terminal "+string(want), "settled")
				if !w.settled[offset] {
					t.Error("the partition is stuck")
				}
				if end := w.ends[tk.ID][0]; want == task.Failed &&
					(end.Error.Code != fault.TooLarge || !strings.Contains(end.Error.Message, fmt.Sprint(blobLimit)) || !strings.Contains(end.Error.Message, "blob_max_bytes")) {
					t.Errorf("%d bytes: %+v, want too_large with the limit and the cure", n, end.Error)
				}
			})
		}
	})
	t.Run("of the topic, without a store", func(t *testing.T) {
		inWorld(t, answering(claimcheck.Inline+1), func(w *world) {
			w.refuse[task.Succeeded] = tasktopic.ErrTooLarge
			tk, _ := w.submit(nil)
			w.expectSoon("terminal failed", "settled")
			if e := w.ends[tk.ID][0].Error; e.Code != fault.TooLarge || !strings.Contains(e.Message, "blob_url") {
				t.Errorf("%+v, want too_large with its cure", e)
			}
		}, func(w *world) { w.params.Results = nil })
	})
}

func TestAPayloadIsFetchedForTheBackendOnly(t *testing.T) {
	var got []string
	inWorld(t, func(_ context.Context, items []backend.Item) []backend.Outcome {
		if got = append(got, items[0].Task.Payload.Text); len(got) == 1 {
			return backend.Fail(len(items), fault.New(fault.Unavailable, "500"))
		}
		return []backend.Outcome{attempttest.OK("ok")}
	}, func(w *world) {
		w.submit(w.refer(`{"text":"from the store"}`))
		w.sleep(10 * time.Second)
		w.expect("terminal succeeded", "settled")
		if diff := cmp.Diff([]string{"from the store", "from the store"}, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestPayloadsInTheStoreRunAlone(t *testing.T) {
	widest := 0
	inWorld(t, func(ctx context.Context, items []backend.Item) []backend.Outcome {
		widest = max(widest, len(items))
		return succeed(ctx, items)
	}, func(w *world) {
		for i := range 8 {
			w.submit(w.refer(fmt.Sprintf(`{"text":"task %d"}`, i)))
		}
		w.sleep(time.Minute)
		if widest != 1 || len(w.ends) != 8 {
			t.Errorf("%d tasks ended, in calls of up to %d", len(w.ends), widest)
		}
	})
}

func TestAStoreThatIsAwayCostsNoAttempt(t *testing.T) {
	do, runs := counted(succeed)
	inWorld(t, do, func(w *world) {
		w.blobs.Fail(blob.ErrUnavailable)
		tk, offset := w.submit(w.refer(`{"text":"hi"}`))
		small, _ := w.submit(nil)
		w.sleep(50 * time.Minute)
		if w.settled[offset] || runs.Load() != 1 || len(w.ends[small.ID]) != 1 {
			t.Fatalf("after %d runs: %v, want the small task alone", runs.Load(), w.wrote())
		}
		w.blobs.Fail(nil)
		w.sleep(15 * time.Second)
		if end := w.ends[tk.ID]; len(end) != 1 || end[0].Status != task.Succeeded || len(end[0].Attempts) != 1 {
			t.Errorf("terminals %+v, want a success at the first attempt", end)
		}
	})
}

func TestALostPayloadIsADeadLetterAtOnce(t *testing.T) {
	for name, do := range map[string]func(w *world) func(*task.Task, *task.Progress){
		"gone": func(*world) func(*task.Task, *task.Progress) {
			return func(t *task.Task, _ *task.Progress) { t.Payload = task.Payload{Ref: &task.Ref{Key: "gone"}} }
		},
		"no payload": func(w *world) func(*task.Task, *task.Progress) { return w.refer(`{"secret":1}`) },
		"damaged": func(w *world) func(*task.Task, *task.Progress) {
			w.blobs.Fail(fmt.Errorf("other bytes: %w", blob.ErrCorrupt))
			return w.refer(`{"text":"hi"}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			run, runs := counted(succeed)
			inWorld(t, run, func(w *world) {
				tk, _ := w.submit(do(w))
				w.expectSoon("letter exhausted", "terminal dead", "settled")
				if l, end := w.letters[0], w.ends[tk.ID][0]; l.Code != fault.BlobLost || end.Error.Code != fault.BlobLost || l.Attempts != 0 {
					t.Errorf("letter %s after %d attempts, terminal %+v", l.Code, l.Attempts, end.Error)
				}
				if runs.Load() != 0 {
					t.Error("it ran")
				}
			})
		})
	}
}

func TestATaskThatWaitsForItsPayloadCanBeCancelledAndExpires(t *testing.T) {
	for want, end := range map[task.Status]func(w *world, tk *task.Task){
		task.Cancelled: func(w *world, tk *task.Task) { w.loop.Cancel(tk.ID) },
		task.Expired:   func(w *world, _ *task.Task) { w.sleep(2 * time.Hour) },
	} {
		inWorld(t, succeed, func(w *world) {
			w.blobs.Fail(errors.Join(blob.ErrUnavailable))
			tk, _ := w.submit(w.refer(`{"text":"hi"}`))
			w.sleep(time.Second)
			end(w, tk)
			w.sleep(10 * time.Second)
			w.expect("terminal "+string(want), "settled")
		})
	}
}
