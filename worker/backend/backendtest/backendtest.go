// Package backendtest is the conformance suite of backends: what the worker
// relies on, whatever the protocol. It runs each backend against a simulated
// engine, whose answers are known.
package backendtest

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend"
	"github.com/penstock/penstock/worker/backend/simulated"
)

// Open returns a backend that reaches the engine.
type Open func(t *testing.T, engine *simulated.Engine) backend.Backend

// Task returns a task of n tokens.
func Task(kind task.Kind, prompt string, n int, stream bool) *task.Task {
	t := &task.Task{
		ID: task.ID("task_" + prompt), Kind: kind, Model: simulated.ChatModel, Stream: stream,
		Params: task.Params{"max_tokens": json.RawMessage(fmt.Sprint(n))},
	}
	switch kind {
	case task.Chat:
		t.Payload.Messages = json.RawMessage(`[{"role": "user", "content": "` + prompt + `"}]`)
	default:
		t.Payload.Text = prompt
	}
	if kind == task.Embedding {
		t.Model, t.Params = simulated.EmbedModel, nil
	}
	return t
}

// Answer is what the engine says to a task of n tokens.
func Answer(t *task.Task, n int) string {
	if t.Payload.Messages != nil {
		return simulated.Text(compact(t.Payload.Messages), n)
	}
	return simulated.Text(t.Payload.Text, n)
}

func compact(raw json.RawMessage) string {
	out, err := json.Marshal(raw) // drops white space
	if err != nil {
		panic(err)
	}
	return string(out)
}

// Run runs the suite.
func Run(t *testing.T, open Open) {
	t.Helper()
	fast := simulated.Params{}
	t.Run("answers each task of a batch with its own answer, in order", func(t *testing.T) { testBatch(t, open, fast) })
	t.Run("embeds each text of a batch", func(t *testing.T) { testEmbed(t, open, fast) })
	t.Run("streams the text that the answer has", func(t *testing.T) { testStream(t, open, fast) })
	t.Run("answers chat", func(t *testing.T) { testChat(t, open, fast) })
	t.Run("says what went wrong by its code", func(t *testing.T) { testCodes(t, open, fast) })
	t.Run("a stream that breaks off is a failure", func(t *testing.T) { testCut(t, open, fast) })
	t.Run("a caller who leaves frees the slot", func(t *testing.T) { testLeave(t, open) })
	t.Run("one who leaves a batch leaves the others their answers", func(t *testing.T) { testLeaveBatch(t, open) })
	t.Run("the end of a call ends every item with its cause", func(t *testing.T) { testCallEnds(t, open) })
	t.Run("is safe for concurrent use", func(t *testing.T) { testConcurrent(t, open, fast) })
	t.Run("joins only tasks that may share a call", func(t *testing.T) { testJoin(t, open, fast) })
	t.Run("tells the engine which task runs under which fence", func(t *testing.T) { testIdentity(t, open, fast) })
}

func testBatch(t *testing.T, open Open, p simulated.Params) {
	b := open(t, simulated.New(p))
	for _, n := range []int{1, 2, 7, 32} {
		items := make([]backend.Item, n)
		for i := range items {
			items[i].Task = Task(task.Completion, fmt.Sprintf("prompt %d of %d", i, n), 5, false)
		}
		out := b.Run(t.Context(), items)
		if len(out) != n {
			t.Fatalf("%d outcomes for %d items", len(out), n)
		}
		for i, o := range out {
			if o.Err != nil {
				t.Fatalf("item %d of %d: %v", i, n, o.Err)
			}
			if want := Answer(items[i].Task, 5); o.Output.Text != want {
				t.Errorf("item %d of %d: %q, want %q", i, n, o.Output.Text, want)
			}
			if o.Usage == nil || o.Usage.CompletionTokens != 5 {
				t.Errorf("item %d of %d: usage %+v, want 5 completion tokens", i, n, o.Usage)
			}
		}
	}
}

func testEmbed(t *testing.T, open Open, p simulated.Params) {
	b := open(t, simulated.New(p))
	items := []backend.Item{
		{Task: Task(task.Embedding, "one", 0, false)},
		{Task: Task(task.Embedding, "two", 0, false)},
	}
	items[1].Task.Payload = task.Payload{Inputs: []json.RawMessage{json.RawMessage(`"two"`), json.RawMessage(`"three"`)}}
	if _, maximum := b.Join(items[1].Task); maximum > 1 {
		check(t, b.Run(t.Context(), items), [][]string{{"one"}, {"two", "three"}})
		return
	}
	check(t, b.Run(t.Context(), items[:1]), [][]string{{"one"}})
}

func check(t *testing.T, outs []backend.Outcome, want [][]string) {
	t.Helper()
	for i, o := range outs {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		var got [][]float32
		if err := json.Unmarshal(o.Output.Embeddings, &got); err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want[i]) {
			t.Fatalf("item %d: %d vectors, want %d", i, len(got), len(want[i]))
		}
		for j, text := range want[i] {
			if got[j][0] != simulated.Vector(text)[0] {
				t.Errorf("item %d: vector %d is not that of %q", i, j, text)
			}
		}
	}
}

func testStream(t *testing.T, open Open, p simulated.Params) {
	b := open(t, simulated.New(p))
	for _, kind := range []task.Kind{task.Chat, task.Completion} {
		var pieces []string
		item := backend.Item{Task: Task(kind, "a story", 9, true), Emit: func(p backend.Piece) { pieces = append(pieces, p.Text) }}
		o := b.Run(t.Context(), []backend.Item{item})[0]
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		if got := strings.Join(pieces, ""); got != o.Output.Text || got != Answer(item.Task, 9) {
			t.Errorf("%s: streamed %q, answered %q, want %q", kind, got, o.Output.Text, Answer(item.Task, 9))
		}
		if len(pieces) < 2 {
			t.Errorf("%s: %d pieces", kind, len(pieces))
		}
		if o.Output.FinishReason == "" || o.Usage == nil || o.Usage.CompletionTokens != 9 {
			t.Errorf("%s: finish %q, usage %+v", kind, o.Output.FinishReason, o.Usage)
		}
	}
}

func testChat(t *testing.T, open Open, p simulated.Params) {
	b := open(t, simulated.New(p))
	item := backend.Item{Task: Task(task.Chat, "hello", 4, false)}
	o := b.Run(t.Context(), []backend.Item{item})[0]
	if o.Err != nil || o.Output.Text != Answer(item.Task, 4) {
		t.Errorf("outcome %+v, %v; want %q", o.Output, o.Err, Answer(item.Task, 4))
	}
}

func testCodes(t *testing.T, open Open, p simulated.Params) {
	for _, tc := range []struct {
		on    simulated.Fault
		code  fault.Code
		class fault.Class
	}{
		{simulated.Fault{Status: 400}, fault.Rejected, fault.ClassPermanent},
		{simulated.Fault{Status: 422}, fault.Rejected, fault.ClassPermanent},
		{simulated.Fault{Status: 401}, fault.Unauthorized, fault.ClassSystem},
		{simulated.Fault{Status: 429, RetryAfter: 3 * time.Second}, fault.Throttled, fault.ClassSystem},
		{simulated.Fault{Status: 500}, fault.Unavailable, fault.ClassTask},
		{simulated.Fault{Status: 503}, fault.Unavailable, fault.ClassTask},
		{simulated.Fault{Action: simulated.ActionGarbage}, fault.Unavailable, fault.ClassTask},
		{simulated.Fault{Action: simulated.ActionCut}, fault.Unavailable, fault.ClassTask},
	} {
		engine := simulated.New(p)
		b := open(t, engine)
		if _, err := engine.Faults().Set(tc.on); err != nil {
			t.Fatal(err)
		}
		o := b.Run(t.Context(), []backend.Item{{Task: Task(task.Completion, "the secret prompt", 3, false)}})[0]
		if fault.CodeOf(o.Err) != tc.code || fault.ClassOf(o.Err) != tc.class {
			t.Errorf("%+v: %v (class %s), want %s (%s)", tc.on, o.Err, fault.ClassOf(o.Err), tc.code, tc.class)
		}
		if got := fault.RetryAfterOf(o.Err); got != tc.on.RetryAfter {
			t.Errorf("%+v: retry after %s", tc.on, got)
		}
		if o.Err != nil && strings.Contains(o.Err.Error(), "secret") {
			t.Errorf("%+v: the error repeats the prompt: %v", tc.on, o.Err)
		}
	}
}

func testCut(t *testing.T, open Open, p simulated.Params) {
	engine := simulated.New(p)
	b := open(t, engine)
	if _, err := engine.Faults().Set(simulated.Fault{Action: simulated.ActionCut, After: 3}); err != nil {
		t.Fatal(err)
	}
	pieces := 0
	item := backend.Item{Task: Task(task.Chat, "story", 9, true), Emit: func(backend.Piece) { pieces++ }}
	o := b.Run(t.Context(), []backend.Item{item})[0]
	if fault.CodeOf(o.Err) != fault.Unavailable || o.Output != nil {
		t.Errorf("outcome %+v, %v; want unavailable", o.Output, o.Err)
	}
	if pieces != 3 {
		t.Errorf("%d pieces before the cut, want 3", pieces)
	}
}

func testLeave(t *testing.T, open Open) {
	engine := simulated.New(simulated.Params{Token: 5 * time.Millisecond})
	b := open(t, engine)
	ctx, cancel := context.WithCancelCause(t.Context())
	left := fault.New(fault.Cancelled, "the caller stopped the task")
	var once sync.Once
	item := backend.Item{
		Task: Task(task.Chat, "endless", 100_000, true), Ctx: ctx,
		Emit: func(backend.Piece) { once.Do(func() { cancel(left) }) },
	}
	o := b.Run(t.Context(), []backend.Item{item})[0]
	if fault.CodeOf(o.Err) != fault.Cancelled {
		t.Errorf("outcome %v, want cancelled", o.Err)
	}
	free(t, engine)
}

func testLeaveBatch(t *testing.T, open Open) {
	engine := simulated.New(simulated.Params{Base: 50 * time.Millisecond})
	b := open(t, engine)
	ctx, cancel := context.WithCancelCause(t.Context())
	items := []backend.Item{
		{Task: Task(task.Completion, "stays", 3, false), Ctx: t.Context()},
		{Task: Task(task.Completion, "leaves", 3, false), Ctx: ctx},
		{Task: Task(task.Completion, "stays too", 3, false)},
	}
	time.AfterFunc(10*time.Millisecond, func() { cancel(fault.New(fault.Cancelled, "the caller stopped the task")) })
	out := b.Run(t.Context(), items)
	if fault.CodeOf(out[1].Err) != fault.Cancelled || out[1].Output != nil {
		t.Errorf("who left got %+v, %v; want cancelled", out[1].Output, out[1].Err)
	}
	for _, i := range []int{0, 2} {
		if out[i].Err != nil || out[i].Output.Text != Answer(items[i].Task, 3) {
			t.Errorf("item %d: %+v, %v", i, out[i].Output, out[i].Err)
		}
	}
}

func testCallEnds(t *testing.T, open Open) {
	engine := simulated.New(simulated.Params{Base: time.Hour})
	b := open(t, engine)
	ctx, cancel := context.WithCancelCause(t.Context())
	items := []backend.Item{{Task: Task(task.Completion, "a", 3, false)}, {Task: Task(task.Completion, "b", 3, false)}}
	time.AfterFunc(10*time.Millisecond, func() { cancel(fault.New(fault.Interrupted, "the worker stops")) })
	for i, o := range b.Run(ctx, items) {
		if fault.CodeOf(o.Err) != fault.Interrupted {
			t.Errorf("item %d: %v, want interrupted", i, o.Err)
		}
	}
	free(t, engine)
}

// free waits until the engine has no work left.
func free(t *testing.T, engine *simulated.Engine) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for engine.Busy() > 0 {
		if time.Now().After(deadline) {
			t.Fatal("the engine still works for a caller who left")
		}
		select {
		case <-t.Context().Done():
		case <-time.After(time.Millisecond):
		}
	}
}

func testConcurrent(t *testing.T, open Open, p simulated.Params) {
	b := open(t, simulated.New(p))
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			item := backend.Item{Task: Task(task.Completion, fmt.Sprint("caller ", i), 4, i%2 == 0)}
			if item.Task.Stream {
				item.Emit = func(backend.Piece) {}
			}
			if o := b.Run(t.Context(), []backend.Item{item})[0]; o.Err != nil || o.Output.Text != Answer(item.Task, 4) {
				t.Errorf("caller %d got %+v, %v", i, o.Output, o.Err)
			}
		})
	}
	wg.Wait()
}

func testJoin(t *testing.T, open Open, p simulated.Params) {
	b := open(t, simulated.New(p))
	plain, stream := Task(task.Completion, "a", 3, false), Task(task.Completion, "b", 3, true)
	if _, n := b.Join(stream); n != 1 {
		t.Errorf("a stream may share a call with %d others", n-1)
	}
	k1, n := b.Join(plain)
	if n < 2 {
		t.Errorf("a plain completion joins at most %d", n)
	}
	other := Task(task.Completion, "c", 3, false)
	if k2, _ := b.Join(other); k1 != k2 {
		t.Error("two plain completions with the same parameters do not join")
	}
	other.Model = "another"
	if k2, _ := b.Join(other); k1 == k2 {
		t.Error("completions of different models join")
	}
}

func testIdentity(t *testing.T, open Open, p simulated.Params) {
	engine := simulated.New(p)
	b := open(t, engine)
	fence, err := event.NewFence(1, 2, 3, 4)
	if err != nil {
		t.Fatal(err)
	}
	items := []backend.Item{
		{Task: Task(task.Completion, "x", 1, false), Fence: fence},
		{Task: Task(task.Completion, "y", 1, false), Fence: fence + 1},
	}
	b.Run(t.Context(), items)
	got := engine.Executions()
	want := []simulated.Execution{{Task: "task_x", Fence: fence.String()}, {Task: "task_y", Fence: (fence + 1).String()}}
	if len(got.Recent) != 2 || got.Recent[0] != want[0] || got.Recent[1] != want[1] {
		t.Errorf("log %+v, want %+v", got.Recent, want)
	}
}
