package openaihttp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend"
)

// stream asks for one answer piece by piece. Only a finish_reason for every
// choice makes it a success: an end without one is a broken stream, however
// cleanly the connection closed.
func (b *Backend) stream(ctx context.Context, item backend.Item) backend.Outcome {
	watch := newWatchdog(ctx, b.p)
	defer watch.stop()
	began := time.Now()
	req := body(item.Task, promptOf(item.Task))
	req["stream"] = true
	req["stream_options"] = map[string]bool{"include_usage": true}
	resp, err := b.post(watch.ctx, []backend.Item{item}, req)
	if err != nil {
		return backend.Outcome{Err: err}
	}
	defer resp.Body.Close()
	if media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); media != "text/event-stream" {
		return backend.Outcome{Err: backend.Nonsense(b.p.Name, fmt.Errorf("media type %q for a stream", media))}
	}
	if item.Emit == nil {
		item.Emit = func(backend.Piece) {} // nobody watches
	}
	got := gathered{emit: item.Emit, began: began, want: choicesOf(item.Task)}
	err = b.read(watch, resp.Body, &got)
	if got.complete() {
		err = nil // what breaks after the end breaks nothing
	}
	if err != nil {
		return backend.Outcome{Err: err, FirstToken: got.firstToken}
	}
	return backend.Outcome{Output: got.output(item.Task.Kind), Usage: got.usage, FirstToken: got.firstToken}
}

// read passes the events of a stream to got until its end.
func (b *Backend) read(watch *watchdog, from io.Reader, got *gathered) error {
	events := eventReader{r: bufio.NewReaderSize(from, 32<<10), left: b.p.MaxAnswer}
	for {
		data, err := events.next()
		watch.pat()
		switch {
		case errors.Is(err, errTooLong):
			return backend.Oversize(b.p.Name, b.p.MaxAnswer)
		case errors.Is(err, io.EOF):
			return backend.Nonsense(b.p.Name, errors.New("the stream ended without finish_reason"))
		case err != nil:
			return backend.Broken(watch.ctx, b.p.Name, err)
		case string(data) == "[DONE]":
			return backend.Nonsense(b.p.Name, errors.New("the stream was done without finish_reason"))
		}
		var ans answer
		if err := json.Unmarshal(data, &ans); err != nil {
			return backend.Nonsense(b.p.Name, errors.New("an event is not JSON of the protocol's shape"))
		}
		if ans.Error != nil {
			return backend.Refused(b.p.Name, ans.Error.status(), nil, len(data))
		}
		if err := got.add(ans); err != nil {
			return backend.Nonsense(b.p.Name, err)
		}
		if got.complete() && ans.Usage != nil && len(ans.Choices) == 0 {
			return nil // the last event but [DONE]
		}
	}
}

// gathered is an answer as it grows.
type gathered struct {
	emit       func(backend.Piece)
	began      time.Time
	firstToken time.Duration
	usage      *task.Usage
	want       int // choices
	choices    []*grown
}

type grown struct {
	text      strings.Builder
	reasoning strings.Builder
	refusal   strings.Builder
	finish    string
	tools     []toolCall
	logprobs  logprobs
}

// choicesOf is how many choices a task's answer has.
func choicesOf(t *task.Task) int {
	return min(maxChoices, max(t.Params.Int("n", 1), 1)*max(len(t.Payload.Inputs), 1))
}

const (
	// maxChoices bounds the choices of one stream: n is at most 128 in the
	// protocol, and a prompt array has at most 2048.
	maxChoices = 128 * 2048
	// maxTools bounds the tool calls of one choice.
	maxTools = 128
)

func (g *gathered) add(ans answer) error {
	if ans.Usage != nil {
		g.usage = ans.Usage
	}
	for _, raw := range ans.Choices {
		c, err := parseChoice(raw)
		if err != nil {
			return err
		}
		if c.Index < 0 || c.Index >= g.want {
			return fmt.Errorf("choice index %d of %d", c.Index, g.want)
		}
		for len(g.choices) <= c.Index {
			g.choices = append(g.choices, &grown{})
		}
		to := g.choices[c.Index]
		if c.FinishReason != "" {
			to.finish = c.FinishReason
		}
		to.add(c)
		p := backend.Piece{Text: c.text(), Index: c.Index, Choice: c.besides(raw)}
		if p.Text == "" && p.Choice == nil {
			continue
		}
		if g.firstToken == 0 {
			g.firstToken = time.Since(g.began)
		}
		g.emit(p)
	}
	return nil
}

// add joins a piece to what the choice has so far.
func (c *grown) add(piece choice) {
	c.text.WriteString(piece.text())
	c.logprobs = c.logprobs.plus(piece.LogProbs)
	if d := piece.Delta; d != nil {
		c.addTools(d.ToolCalls)
		c.reasoning.WriteString(d.reasoning())
		c.refusal.WriteString(d.Refusal)
	}
}

// addTools joins the pieces of tool calls by their index.
func (c *grown) addTools(pieces []toolCall) {
	for _, p := range pieces {
		if p.Index < 0 || p.Index >= maxTools {
			continue
		}
		for len(c.tools) <= p.Index {
			c.tools = append(c.tools, toolCall{Index: len(c.tools)})
		}
		to := &c.tools[p.Index]
		to.ID += p.ID
		if p.Type != "" {
			to.Type = p.Type
		}
		to.Function.Name += p.Function.Name
		to.Function.Arguments += p.Function.Arguments
	}
}

// complete reports whether every choice has its finish_reason.
func (g *gathered) complete() bool {
	for i := range g.choices {
		if g.choices[i].finish == "" {
			return false
		}
	}
	return len(g.choices) == g.want
}

// output of a stream; the choices are put together where the text alone would
// lose something.
func (g *gathered) output(k task.Kind) *task.Output {
	first := g.choices[0]
	out := &task.Output{Text: first.text.String(), FinishReason: first.finish}
	if len(g.choices) == 1 && first.tools == nil && first.logprobs == nil && first.reasoning.Len()+first.refusal.Len() == 0 {
		return out
	}
	all := make([]any, len(g.choices))
	for i := range g.choices {
		all[i] = g.choices[i].whole(i, k)
	}
	out.Choices = mustJSON(all)
	return out
}

// whole is the choice as the protocol has it in an answer that is not streamed.
func (c *grown) whole(index int, k task.Kind) map[string]any {
	out := map[string]any{"index": index, "finish_reason": c.finish, "logprobs": c.logprobs}
	if k != task.Chat {
		out["text"] = c.text.String()
		return out
	}
	message := map[string]any{"role": "assistant", "content": c.text.String()}
	if c.tools != nil {
		message["tool_calls"] = c.tools
	}
	if c.reasoning.Len() > 0 {
		message["reasoning_content"] = c.reasoning.String()
	}
	if c.refusal.Len() > 0 {
		message["refusal"] = c.refusal.String()
	}
	out["message"] = message
	return out
}

// watchdog ends a stream that is silent for too long: at first for FirstByte,
// then for Idle.
type watchdog struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	first  time.Duration
	idle   time.Duration
	came   atomic.Bool // something has come
}

func newWatchdog(ctx context.Context, p Params) *watchdog {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{ctx: ctx, cancel: cancel, first: p.FirstByte, idle: p.Idle}
	w.timer = time.AfterFunc(p.FirstByte, func() {
		cancel(backend.Silent(p.Name, w.limit()))
	})
	return w
}

// pat tells the watchdog that something came.
func (w *watchdog) pat() {
	w.came.Store(true)
	w.timer.Reset(w.idle)
}

func (w *watchdog) limit() time.Duration {
	if w.came.Load() {
		return w.idle
	}
	return w.first
}

func (w *watchdog) stop() {
	w.timer.Stop()
	w.cancel(context.Canceled)
}

// errTooLong is returned when a stream is longer than an answer may be.
var errTooLong = errors.New("the stream is too long")

// eventReader reads the data of server-sent events (WHATWG HTML, 9.2.6), as far
// as engines use them: fields other than data are passed over, but for `error`,
// by which older llama.cpp servers tell of a failure.
type eventReader struct {
	r    *bufio.Reader
	left int64 // bytes that may still come
}

// next returns the data of the next event that has any. The end of the stream
// in the middle of an event is io.EOF: what is not finished does not count.
func (e *eventReader) next() ([]byte, error) {
	var data []byte
	for {
		line, err := e.line()
		if err != nil {
			return nil, err
		}
		if len(line) == 0 {
			if data != nil {
				return data, nil
			}
			continue
		}
		value, ok := bytes.CutPrefix(line, []byte("data:"))
		if failure, is := bytes.CutPrefix(line, []byte("error:")); is {
			return slices.Concat([]byte(`{"error":`), failure, []byte(`}`)), nil
		}
		if !ok {
			continue
		}
		if data != nil {
			data = append(data, '\n')
		}
		data = append(data, bytes.TrimPrefix(value, []byte(" "))...)
	}
}

// line reads up to a line feed, without it and a carriage return before it.
func (e *eventReader) line() ([]byte, error) {
	var out []byte
	for {
		part, err := e.r.ReadSlice('\n')
		out = append(out, part...)
		if e.left -= int64(len(part)); e.left < 0 {
			return nil, errTooLong
		}
		if err == nil {
			return bytes.TrimSuffix(bytes.TrimSuffix(out, []byte("\n")), []byte("\r")), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
}
