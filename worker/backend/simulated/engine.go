package simulated

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend"
)

// Params are the engine's cost and shape.
type Params struct {
	Name   string        // in errors; default "simulated"
	Base   time.Duration // cost of a batch, whatever its size
	Item   time.Duration // cost of each item of a batch
	Token  time.Duration // time per streamed token
	Max    int           // largest batch; default 32
	Tokens int           // length of an answer unless max_tokens says otherwise; default 16
	Models []string      // default sim-chat, sim-embed
	Stamp  bool          // streamed tokens are times: see Stamp
}

// DefaultParams returns the engine of `penstock dev`: 20 ms + 1 ms per item, 20
// ms per streamed token.
func DefaultParams() Params {
	return Params{Base: 20 * time.Millisecond, Item: time.Millisecond, Token: 20 * time.Millisecond}
}

// Names of the engine's models.
const (
	ChatModel  = "sim-chat"
	EmbedModel = "sim-embed"
)

// Engine is the simulated engine. It is safe for concurrent use.
type Engine struct {
	p          Params
	device     chan struct{} // one batch at a time holds it
	faults     Faults
	executions executions
	processing atomic.Int64 // items that hold a slot
	deferred   atomic.Int64 // batches that wait for the device
}

// New returns an engine.
func New(p Params) *Engine {
	if p.Name == "" {
		p.Name = "simulated"
	}
	if p.Max <= 0 {
		p.Max = 32
	}
	if p.Tokens <= 0 {
		p.Tokens = 16
	}
	if len(p.Models) == 0 {
		p.Models = []string{ChatModel, EmbedModel}
	}
	return &Engine{p: p, device: make(chan struct{}, 1)} // a semaphore: full means busy
}

// Faults returns the engine's fault switches.
func (e *Engine) Faults() *Faults { return &e.faults }

// Executions returns what ran so far.
func (e *Engine) Executions() Executions { return e.executions.snapshot() }

// Busy returns how many items hold a slot just now.
func (e *Engine) Busy() int { return int(e.processing.Load()) }

// Join implements backend.Backend: what is not streamed shares the device.
func (e *Engine) Join(t *task.Task) (string, int) {
	if t.Stream && t.Kind != task.Embedding {
		return string(t.ID), 1
	}
	return t.Model + "\x00" + string(t.Kind), e.p.Max
}

// Models implements backend.Lister.
func (e *Engine) Models(context.Context) ([]string, error) { return slices.Clone(e.p.Models), nil }

// Probe implements backend.Prober.
func (e *Engine) Probe(context.Context) error { return nil }

// Run implements backend.Backend. As in a real engine, one item that is
// refused fails the whole call.
func (e *Engine) Run(ctx context.Context, items []backend.Item) []backend.Outcome {
	for _, it := range items {
		e.executions.add(string(it.Task.ID), it.Fence.String())
	}
	return e.run(ctx, items)
}

// run is Run without the log.
func (e *Engine) run(ctx context.Context, items []backend.Item) []backend.Outcome {
	calls := make([]call, len(items))
	for i, it := range items {
		calls[i] = callOf(it, e.p.Tokens)
	}
	if len(items) == 1 && items[0].Emit != nil && calls[0].kind != task.Embedding {
		ctx, stop := backend.Together(ctx, items)
		defer stop()
		return []backend.Outcome{e.stream(ctx, calls[0], items[0].Emit)}
	}
	return e.batch(ctx, items, calls)
}

// call is what the engine needs of one item.
type call struct {
	model  string
	kind   task.Kind
	prompt string
	inputs []string // an embedding's, or a prompt array's
	tokens int
	n      int    // choices for each prompt
	base64 bool   // embeddings as the protocol's SDKs ask for them
	tool   string // the function that is called instead of an answer; empty: none
}

func callOf(it backend.Item, tokens int) call {
	t := it.Task
	c := call{model: t.Model, kind: t.Kind, prompt: t.Payload.Text}
	c.tokens = bounded(t.Params.Int("max_completion_tokens", t.Params.Int("max_tokens", tokens)), 0, maxTokens)
	c.n = bounded(t.Params.Int("n", 1), 1, maxChoices)
	c.base64 = string(t.Params["encoding_format"]) == `"base64"`
	if c.prompt == "" && t.Payload.Messages != nil {
		c.prompt = compact(t.Payload.Messages)
	}
	if c.kind == task.Chat {
		c.tool = toolOf(t.Params, c.prompt)
	}
	for _, raw := range t.Payload.Inputs {
		c.inputs = append(c.inputs, inputText(raw))
	}
	return c
}

const (
	maxTokens  = 1 << 20 // of an answer, whatever is asked for
	maxChoices = 128
)

func bounded(n, least, most int) int { return max(least, min(most, n)) }

// size is how many items of a batch the call is.
func (c call) size() int { return max(1, len(c.inputs)) * c.n }

// compact drops white space, which changes on the way through encoders and must
// not change the answer.
func compact(raw json.RawMessage) string {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return string(raw)
	}
	return b.String()
}

func inputText(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

// text is everything a fault rule may match in.
func (c call) text() string {
	out := c.prompt
	for _, in := range c.inputs {
		out += "\n" + in
	}
	return out
}

// batch runs the items on the device, together.
func (e *Engine) batch(ctx context.Context, items []backend.Item, calls []call) []backend.Outcome {
	ctx, stop := backend.Together(ctx, items)
	defer stop()
	var hit *Fault
	for _, c := range calls {
		if f, ok := e.faults.take(c.model, c.text()); ok {
			hit = &f
			break
		}
	}
	if hit != nil {
		err := e.suffer(ctx, *hit)
		if m, ok := errors.AsType[*misbehaviour](err); ok {
			m.prompts = calls[0].prompts() // over HTTP one item is the whole call
		}
		if err != nil {
			return backend.Fail(len(items), err)
		}
	}
	size := 0
	for _, c := range calls {
		size += c.size()
	}
	for ; size > 0; size -= e.p.Max { // more than one batch takes are some, one after another
		if err := e.occupy(ctx, min(size, e.p.Max)); err != nil {
			return backend.Fail(len(items), err)
		}
	}
	out := make([]backend.Outcome, len(items))
	for i, c := range calls {
		out[i].Output, out[i].Usage = c.answer()
		if emit := items[i].Emit; emit != nil && out[i].Output.Text != "" {
			emit(backend.Piece{Text: out[i].Output.Text})
		}
	}
	backend.Left(items, out, e.p.Name)
	return out
}

// occupy waits for the device and holds it for the batch's cost.
func (e *Engine) occupy(ctx context.Context, n int) error {
	e.deferred.Add(1)
	select {
	case e.device <- struct{}{}:
		e.deferred.Add(-1)
	case <-ctx.Done():
		e.deferred.Add(-1)
		return e.cancelled(ctx)
	}
	defer func() { <-e.device }()
	e.processing.Add(int64(n))
	defer e.processing.Add(-int64(n))
	return e.sleep(ctx, e.p.Base+time.Duration(n)*e.p.Item)
}

// stream emits an answer token by token.
func (e *Engine) stream(ctx context.Context, c call, emit func(backend.Piece)) backend.Outcome {
	e.processing.Add(1)
	defer e.processing.Add(-1)
	began := time.Now()
	cut, slow := -1, time.Duration(0)
	if f, ok := e.faults.take(c.model, c.text()); ok {
		switch f.Action {
		case ActionCut:
			cut = f.After
		case ActionSlow:
			slow = f.Delay
		default:
			return backend.Outcome{Err: e.suffer(ctx, f)}
		}
	}
	var out backend.Outcome
	choices := c.streams()
	for i := range c.tokens {
		if i == cut {
			out.Err = &fault.Error{Code: fault.Unavailable, Backend: e.p.Name, Message: "the stream broke off before its end"}
			return out
		}
		if err := e.sleep(ctx, e.p.Token+slow); err != nil {
			out.Err = err
			return out
		}
		if i == 0 {
			out.FirstToken = time.Since(began)
		}
		for index, tokens := range choices { // side by side, as engines do
			if e.p.Stamp {
				tokens[i] = Stamp(time.Now())
			}
			emit(c.piece(index, i, tokens[i]))
		}
	}
	out.Output, out.Usage = c.said(choices)
	return out
}

// suffer carries out a fault that concerns a whole call. Nil: it goes on.
func (e *Engine) suffer(ctx context.Context, f Fault) error {
	switch f.Action {
	case ActionHang:
		<-ctx.Done()
		return e.cancelled(ctx)
	case ActionSlow:
		return e.sleep(ctx, f.Delay)
	case ActionCut:
		return e.misbehaves(f, "the answer broke off")
	case ActionGarbage, ActionUTF8, ActionDrip, ActionFlood, ActionHalf, ActionDrop:
		return e.misbehaves(f, "the answer was not what the protocol says")
	}
	return &fault.Error{
		Code: codeOf(f.Status), Backend: e.p.Name, Status: f.Status, RetryAfter: f.RetryAfter,
		Message: "a fault switch of the simulated backend is on",
	}
}

// misbehaviour is a fault that goes its own way over HTTP.
type misbehaviour struct {
	Fault
	err     *fault.Error
	prompts []string // of the call
}

func (m *misbehaviour) Error() string { return m.err.Error() }

func (m *misbehaviour) Unwrap() error { return m.err }

func (e *Engine) misbehaves(f Fault, message string) error {
	return &misbehaviour{Fault: f, err: &fault.Error{Code: fault.Unavailable, Backend: e.p.Name, Message: message}}
}

func codeOf(status int) fault.Code {
	switch {
	case status == 429:
		return fault.Throttled
	case status == 401 || status == 403:
		return fault.Unauthorized
	case status >= 400 && status < 500:
		return fault.Rejected
	default:
		return fault.Unavailable
	}
}

// sleep waits, or returns why it could not.
func (e *Engine) sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		if ctx.Err() != nil {
			return e.cancelled(ctx)
		}
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return e.cancelled(ctx)
	}
}

// cancelled says why a call ended before its answer.
func (e *Engine) cancelled(ctx context.Context) error { return backend.Ended(ctx, e.p.Name) }
