package sim_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend"
	"github.com/penstock/penstock/worker/backend/simulated"
)

// tokens is the length of every answer.
const tokens = 8

// engine is the backend of all workers. A prompt begins with what the engine
// makes of it; what it answers is a function of the prompt.
type engine struct {
	*simulated.Engine

	mu     sync.Mutex
	rng    *rand.Rand
	runs   map[task.ID]int
	cured  bool // poison does no harm any more
	sick   bool // calls fail now and then
	away   bool // nobody answers
	refuse bool // every call is told to come back later
}

func newEngine(seed uint64) *engine {
	return &engine{
		Engine: simulated.New(simulated.Params{
			Base: 30 * time.Millisecond, Item: 2 * time.Millisecond, Token: 25 * time.Millisecond, Max: 8, Tokens: tokens,
		}),
		rng: rand.New(rand.NewPCG(seed, 3)), runs: map[task.ID]int{},
	}
}

func (e *engine) set(change func(*engine)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change(e)
}

// Run implements backend.Backend.
func (e *engine) Run(ctx context.Context, items []backend.Item) []backend.Outcome {
	err, hang := e.verdict(items)
	if hang {
		ctx, stop := backend.Together(ctx, items)
		defer stop()
		<-ctx.Done()
		return backend.Fail(len(items), backend.Ended(ctx, "sim"))
	}
	if err != nil {
		if len(items) == 1 && items[0].Emit != nil && strings.HasPrefix(prompt(items[0].Task), "cut") {
			items[0].Emit(backend.Piece{Text: "a beginning that "})
		}
		return backend.Fail(len(items), err)
	}
	return e.Engine.Run(ctx, items)
}

// verdict is what becomes of a call: as in a real engine one bad item spoils it
// for all.
func (e *engine) verdict(items []backend.Item) (err error, hang bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	fail := func(code fault.Code) error {
		return &fault.Error{Code: code, Backend: "sim", Status: 500, Message: "the plan says so"}
	}
	switch {
	case e.away, e.sick && e.rng.IntN(3) == 0:
		return fail(fault.Unavailable), false
	case e.refuse:
		return &fault.Error{Code: fault.Throttled, Backend: "sim", Status: 429, RetryAfter: time.Second, Message: "the plan says so"}, false
	}
	for _, it := range items {
		e.runs[it.Task.ID]++
		switch kind, _, _ := strings.Cut(prompt(it.Task), " "); kind {
		case poison:
			if !e.cured {
				err = fail(fault.Unavailable)
			}
		case rejected:
			err = fail(fault.Rejected)
		case flaky, cut:
			if e.runs[it.Task.ID] <= 2 {
				err = fail(fault.Unavailable)
			}
		case hangs:
			hang = hang || e.runs[it.Task.ID] == 1 && len(items) == 1
		}
	}
	return err, hang
}

func prompt(t *task.Task) string {
	if len(t.Payload.Inputs) > 0 {
		return strings.Trim(string(t.Payload.Inputs[0]), `"`)
	}
	if t.Payload.Messages == nil {
		return t.Payload.Text
	}
	var said []said
	if err := json.Unmarshal(t.Payload.Messages, &said); err != nil || len(said) == 0 {
		panic(fmt.Sprintf("%s: %v", t.Payload.Messages, err))
	}
	return said[len(said)-1].Content
}
