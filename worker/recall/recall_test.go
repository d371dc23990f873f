package recall_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/schema/conversation"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/worker/recall"
)

func TestTheNextTurnKnowsTheOneBefore(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, r *recall.Recaller) {
		w.settings = &conversation.Settings{Instructions: "be brief"}
		var want []string
		for _, said := range []string{"one", "two", "three"} {
			tk := w.task(said)
			want = append(want, "user: "+said)
			got := recalled(t, r, tk)
			if diff := cmp.Diff(append([]string{"system: be brief"}, want...), got); diff != "" {
				t.Fatalf("at %q (-want +got)\n%s", said, diff)
			}
			w.end(tk, task.Succeeded, "re: "+said) // and the next runs at once: its projection lags
			want = append(want, "assistant: re: "+said)
		}
	})
}

func TestATurnIsRememberedAsLongAsItsSessionSays(t *testing.T) {
	for name, tc := range map[string]struct {
		settings *conversation.Settings
		want     time.Duration
	}{
		"which nobody opened":                       {nil, time.Hour},
		"that says nothing":                         {&conversation.Settings{MaxTokens: 10}, time.Hour},
		"that says less than answers can be read":   {&conversation.Settings{TTLSeconds: 90}, 90 * time.Second},
		"that says more, as other services may let": {&conversation.Settings{TTLSeconds: 1e6}, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world, r *recall.Recaller) {
				w.settings, w.kept = tc.settings, time.Now().Add(tc.want)
				tk := w.task("one")
				recalled(t, r, tk)
				got := w.records[0]
				want := &conversation.Record{
					SchemaVersion: 1, Step: conversation.Turned, Tenant: "acme", SessionID: "s-1", TaskID: tk.ID, At: got.At,
					Until: got.At.Add(tc.want), Lane: lane, Content: tk.Payload.Messages,
				}
				if diff := cmp.Diff([]*conversation.Record{want}, w.records); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestSettingsAreWrittenAgainBeforeTheLogForgetsThem(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, r *recall.Recaller) {
		w.settings, w.kept = &conversation.Settings{Instructions: "be brief", TTLSeconds: 1800}, time.Now().Add(30*time.Minute)
		var kept []*conversation.Record
		for range 13 { // a turn every five minutes, for an hour
			tk := w.task("on")
			recalled(t, r, tk)
			w.end(tk, task.Succeeded, "and on")
			time.Sleep(5 * time.Minute)
		}
		for _, rec := range w.records {
			if rec.Step == conversation.Kept {
				kept = append(kept, rec)
			}
		}
		if n := len(kept); n < 4 || n > 8 { // an eighth of an hour is seven minutes and a half
			t.Fatalf("written %d times within an hour", n)
		}
		want := &conversation.Record{
			SchemaVersion: 1, Step: conversation.Kept, Tenant: "acme", SessionID: "s-1", At: made, Until: w.kept, Settings: w.settings,
		}
		if diff := cmp.Diff(want, kept[len(kept)-1]); diff != "" {
			t.Error(diff)
		}
	})
}

func TestOnlyWhatSucceededIsRemembered(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, r *recall.Recaller) {
		for _, status := range []task.Status{task.Failed, task.Cancelled, task.Expired, task.Dead} {
			tk := w.task(string(status))
			recalled(t, r, tk)
			w.end(tk, status, "never")
		}
		old := w.task("old")
		recalled(t, r, old)
		w.put(old.ID, terminal.State{Status: task.Succeeded, Offset: 1}, nil) // past its time to live
		if diff := cmp.Diff([]string{"user: now"}, recalled(t, r, w.task("now"))); diff != "" {
			t.Error(diff)
		}
	})
}

func TestATurnKeepsItsPlace(t *testing.T) {
	t.Run("when its task is run again", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world, r *recall.Recaller) {
			first, second := w.task("one"), w.task("two")
			recalled(t, r, first)
			w.end(first, task.Succeeded, "re: one")
			want := recalled(t, r, second)
			w.end(second, task.Succeeded, "re: two")
			time.Sleep(time.Second)
			recalled(t, r, first) // a zombie
			if diff := cmp.Diff(want, recalled(t, r, second)); diff != "" {
				t.Error(diff)
			}
			if len(w.turns) != 2 {
				t.Errorf("%d turns of two tasks", len(w.turns))
			}
		})
	})
	t.Run("when two workers run it at once", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world, r *recall.Recaller) {
			tk := w.task("one")
			results := make(chan []string, 2)
			for range 2 {
				go func() { results <- recalled(t, r, tk) }()
			}
			if a, b := <-results, <-results; !slices.Equal(a, b) || len(a) != 1 {
				t.Errorf("%v and %v", a, b)
			}
		})
	})
	t.Run("when it is redriven behind others", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world, r *recall.Recaller) {
			dead, next := w.task("one"), w.task("two")
			recalled(t, r, dead)
			w.end(dead, task.Dead, "")
			recalled(t, r, next)
			w.end(next, task.Succeeded, "re: two")
			w.put(dead.ID, terminal.State{Generation: 1, Offset: 2}, nil)
			third := w.task("three")
			if got := recalled(t, r, third); len(got) != 3 { // it waits for no redrive
				t.Errorf("got %v", got)
			}
			w.end(third, task.Failed, "")
			if diff := cmp.Diff([]string{"user: one"}, recalled(t, r, dead)); diff != "" {
				t.Error(diff)
			}
			w.put(dead.ID, terminal.State{Generation: 1, Status: task.Succeeded, Offset: 3}, &terminal.Terminal{Output: &task.Output{Text: "re: one"}})
			time.Sleep(lag)
			if diff := cmp.Diff([]string{"user: one", "assistant: re: one", "user: two", "assistant: re: two", "user: four"}, recalled(t, r, w.task("four"))); diff != "" {
				t.Error(diff)
			}
		})
	})
}

func TestAnEarlierTurnOfTheLaneIsAwaited(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, r *recall.Recaller) {
		first, second := w.task("one"), w.task("two")
		recalled(t, r, first) // it has ended, or second would not run; Redis does not say so yet
		began := time.Now()
		waits(t, r, second)
		if took := time.Since(began); took < 2*time.Second || took > 2200*time.Millisecond {
			t.Errorf("gave up after %s", took)
		}
		w.end(first, task.Succeeded, "re: one")
		if diff := cmp.Diff([]string{"user: one", "assistant: re: one", "user: two"}, recalled(t, r, second)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestATurnThatWasHandedOnBehindUsIsNotAwaitedForEver(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, r *recall.Recaller) {
		first, second := w.task("one"), w.task("two")
		recalled(t, r, first)
		waits(t, r, second)
		time.Sleep(time.Minute)
		for name, change := range map[string]func(on bool){ // it may have ended, for all that is known
			"Redis is rebuilt":          func(on bool) { w.behind = on },
			"Redis lags":                func(on bool) { w.written = map[bool]int64{true: 1}[on] },
			"nobody says what there is": func(on bool) { w.kafka = map[bool]error{true: errDown}[on] },
		} {
			t.Log(name)
			w.set(func() { change(true) })
			waits(t, r, second)
			w.set(func() { change(false) })
		}
		if diff := cmp.Diff([]string{"user: two"}, recalled(t, r, second)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestATurnOfAnotherLaneIsNotAwaited(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, r *recall.Recaller) {
		slow := w.task("slow")
		recalledIn(t, r, slow, other)
		quick, waiting := w.task("quick"), w.task("while Redis is rebuilt")
		if diff := cmp.Diff([]string{"user: quick"}, recalled(t, r, quick)); diff != "" {
			t.Error(diff)
		}
		w.end(quick, task.Failed, "")
		w.end(slow, task.Succeeded, "re: slow")
		time.Sleep(lag)
		w.set(func() { w.behind = true })
		if _, err := r.Recall(t.Context(), waiting, waiting.Payload.Messages, third); fault.ClassOf(err) != fault.ClassSystem {
			t.Errorf("while it is not known who runs still: %v", err)
		}
		w.set(func() { w.behind = false })
		if got := recalledIn(t, r, waiting, third); len(got) != 3 || got[1] != "assistant: re: slow" {
			t.Errorf("got %v", got)
		}
	})
}

func TestATaskWaitsForItsMemory(t *testing.T) {
	for name, change := range map[string]func(w *world, on bool){
		"while Redis is away":               func(w *world, on bool) { w.down = map[bool]error{true: errDown}[on] },
		"while Redis is rebuilt":            func(w *world, on bool) { w.rebuilding = on },
		"while Kafka does not take turns":   func(w *world, on bool) { w.kafka = map[bool]error{true: errDown}[on] },
		"while the blob store does not say": func(w *world, on bool) { w.blobs.Fail(map[bool]error{true: errDown}[on]) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world, r *recall.Recaller) {
				first := w.task("one")
				ref := w.blobs.Hold(`{"messages":[{"role":"user","content":"one"}]}`)
				kept := *first
				kept.Payload = task.Payload{Ref: &ref}
				if _, err := r.Recall(t.Context(), &kept, first.Payload.Messages, lane); err != nil {
					t.Fatal(err)
				}
				w.end(first, task.Succeeded, "re: one")
				next := w.task("two")
				w.set(func() { change(w, true) })
				waits(t, r, next)
				w.set(func() { change(w, false) })
				time.Sleep(10 * time.Second) // the store of blobs is left alone for a while
				if diff := cmp.Diff([]string{"user: one", "assistant: re: one", "user: two"}, recalled(t, r, next)); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestWhatEndsATaskEndsItsWait(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, r *recall.Recaller) {
		w.rebuilding = true
		tk := w.task("one")
		ended := make(chan time.Duration)
		began := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			_, _ = r.Recall(ctx, tk, tk.Payload.Messages, lane)
			ended <- time.Since(began)
		}()
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		cancel()
		if took := <-ended; took != 500*time.Millisecond {
			t.Errorf("it ended after %s", took)
		}
	})
}

func TestATurnWhoseContentIsLostIsLeftOut(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, r *recall.Recaller) {
		large, small := w.task("large"), w.task("small")
		recalled(t, r, large)
		ref := w.blobs.Hold(`{"text":"re: large"}`)
		w.put(large.ID, terminal.State{Status: task.Succeeded, Offset: 1}, &terminal.Terminal{OutputRef: &ref})
		if got := recalled(t, r, small); len(got) != 3 || got[1] != "assistant: re: large" {
			t.Errorf("a large answer is recalled as %v", got)
		}
		w.end(small, task.Succeeded, "re: small")
		gone := task.Ref{Key: "gone", SHA256: strings.Repeat("0", 64), Bytes: 1}
		w.put(large.ID, terminal.State{Status: task.Succeeded, Offset: 1}, &terminal.Terminal{OutputRef: &gone})
		if diff := cmp.Diff([]string{"user: small", "assistant: re: small", "user: next"}, recalled(t, r, w.task("next"))); diff != "" {
			t.Error(diff)
		}
	})
}

func TestTheBudgetIsTheSessionsAndCountsWhatIsSaidAnyway(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, r *recall.Recaller) {
		for _, said := range []string{"one", "two", "three"} {
			tk := w.task(said)
			recalled(t, r, tk)
			w.end(tk, task.Succeeded, "re: "+said)
		}
		tk := w.task("four")
		each := conversation.Guess(len(asked("three"))) + 1 - len("[]")/4 // with the answer's one token
		own := conversation.Guess(len(tk.Payload.Messages) - len("[]"))
		w.settings = &conversation.Settings{MaxTokens: own + each}
		if got := recalled(t, r, tk); len(got) != 3 || got[0] != "user: three" {
			t.Errorf("within %d tokens: %v", w.settings.MaxTokens, got)
		}
		w.settings.MaxTokens = own + each - 1
		if got := recalled(t, r, tk); len(got) != 1 {
			t.Errorf("within %d tokens: %v", w.settings.MaxTokens, got)
		}
		w.settings.MaxTokens = 1 // its own messages are given whatever they cost
		if got := recalled(t, r, tk); len(got) != 1 {
			t.Errorf("within one token: %v", got)
		}
	})
}

func TestWhatNoIngressWroteIsMalformed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, r *recall.Recaller) {
		homeless := w.task("one")
		homeless.SessionID = ""
		wordless := w.task("one")
		wordless.Payload = task.Payload{Text: "one"}
		odd := w.task("one")
		odd.Payload.Messages = json.RawMessage(`{"role":"user"}`)
		for _, tk := range []*task.Task{homeless, wordless, odd} {
			if _, err := r.Recall(t.Context(), tk, tk.Payload.Messages, lane); fault.CodeOf(err) != fault.Malformed {
				t.Errorf("%+v: %v", tk.Payload, err)
			}
		}
		if len(w.turns) != 0 {
			t.Errorf("%d turns", len(w.turns))
		}
	})
}
