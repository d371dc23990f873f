package simulated

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend"
)

// maxRequest bounds a request's body in bytes.
const maxRequest = 64 << 20

// Handler serves the engine over the OpenAI HTTP protocol, with its switches
// and log beside it:
//
//	GET    /v1/models                 POST /v1/chat/completions
//	POST   /v1/completions            POST /v1/embeddings
//	GET    /health                    GET  /metrics
//	GET    /sim/faults                POST /sim/faults
//	DELETE /sim/faults                DELETE /sim/faults/{id}
//	GET    /sim/executions
func (e *Engine) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", e.serveModels)
	mux.HandleFunc("POST /v1/chat/completions", e.serveCall(task.Chat))
	mux.HandleFunc("POST /v1/completions", e.serveCall(task.Completion))
	mux.HandleFunc("POST /v1/embeddings", e.serveCall(task.Embedding))
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, map[string]string{"status": "ok"}) })
	mux.HandleFunc("GET /metrics", e.serveMetrics)
	mux.HandleFunc("GET /sim/executions", func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, e.Executions()) })
	mux.HandleFunc("GET /sim/faults", func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, e.faults.List()) })
	mux.HandleFunc("POST /sim/faults", e.setFault)
	mux.HandleFunc("DELETE /sim/faults", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, map[string]int{"cleared": e.faults.Clear(0)})
	})
	mux.HandleFunc("DELETE /sim/faults/{id}", e.clearFault)
	return mux
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(marshal(body)) // the caller is gone, and nobody else listens
}

func replyError(w http.ResponseWriter, status int, message string) {
	reply(w, status, map[string]any{"error": map[string]any{
		"message": message, "type": "simulated_error", "param": nil, "code": strconv.Itoa(status),
	}})
}

func (e *Engine) serveModels(w http.ResponseWriter, _ *http.Request) {
	type model struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		Created int64  `json:"created"`
		OwnedBy string `json:"owned_by"`
	}
	data := make([]model, len(e.p.Models))
	for i, id := range e.p.Models {
		data[i] = model{id, "model", 0, "penstock"}
	}
	reply(w, 200, map[string]any{"object": "list", "data": data})
}

// serveMetrics shows the slots, by the names llama.cpp's server gives them.
func (e *Engine) serveMetrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	_, _ = fmt.Fprintf(w, "# TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing %d\n"+
		"# TYPE llamacpp:requests_deferred gauge\nllamacpp:requests_deferred %d\n", e.processing.Load(), e.deferred.Load())
}

func (e *Engine) setFault(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Fault
		Delay      string `json:"delay"`       // a Go duration
		RetryAfter string `json:"retry_after"` // likewise
	}
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16))
	dec.DisallowUnknownFields()
	err := dec.Decode(&body)
	for _, d := range []struct {
		text string
		to   *time.Duration
	}{{body.Delay, &body.Fault.Delay}, {body.RetryAfter, &body.Fault.RetryAfter}} {
		if err == nil && d.text != "" {
			*d.to, err = time.ParseDuration(d.text)
		}
	}
	if err != nil {
		replyError(w, 400, "not a fault: "+err.Error())
		return
	}
	id, err := e.faults.Set(body.Fault)
	if err != nil {
		replyError(w, 400, err.Error())
		return
	}
	reply(w, 201, map[string]int{"id": id})
}

func (e *Engine) clearFault(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil || id < 1 || e.faults.Clear(id) == 0 {
		replyError(w, 404, "no such fault")
		return
	}
	reply(w, 200, map[string]int{"cleared": 1})
}

// request is the body of a call, in any of its three forms.
type request struct {
	Model     string          `json:"model"`
	Prompt    json.RawMessage `json:"prompt"`
	Messages  json.RawMessage `json:"messages"`
	Input     json.RawMessage `json:"input"`
	MaxTokens *int            `json:"max_tokens"`
	Stream    bool            `json:"stream"`
	Options   struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
}

func (e *Engine) serveCall(kind task.Kind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req request
		raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
		if err == nil {
			err = json.Unmarshal(raw, &req)
		}
		items, err2 := req.items(kind, r.Header)
		if err := errors.Join(err, err2); err != nil {
			replyError(w, 400, err.Error())
			return
		}
		if len(items) > e.p.Max {
			replyError(w, 400, fmt.Sprintf("%d prompts in one call, the engine takes %d", len(items), e.p.Max))
			return
		}
		if req.Stream && kind != task.Embedding {
			e.serveStream(w, r, req, kind, items[0])
			return
		}
		e.servePlain(w, r, req, kind, items)
	}
}

// items turns one call into the tasks it stands for: a prompt array is many.
func (q request) items(kind task.Kind, h http.Header) ([]backend.Item, error) {
	var texts []string
	switch kind {
	case task.Chat:
		if len(q.Messages) == 0 {
			return nil, errors.New("messages is required")
		}
		texts = []string{compact(q.Messages)}
	case task.Completion:
		texts = listOf(q.Prompt)
	default:
		texts = listOf(q.Input)
	}
	if len(texts) == 0 {
		return nil, errors.New("nothing to do: prompt or input is empty")
	}
	names, fences := strings.Split(h.Get(backend.HeaderTask), ","), strings.Split(h.Get(backend.HeaderFence), ",")
	out := make([]backend.Item, len(texts))
	for i, text := range texts {
		t := &task.Task{Kind: kind, Model: q.Model, Stream: q.Stream, Payload: task.Payload{Text: text}}
		if q.MaxTokens != nil {
			t.Params = task.Params{"max_tokens": json.RawMessage(strconv.Itoa(*q.MaxTokens))}
		}
		out[i].Task = t
		if len(names) == len(texts) {
			t.ID = task.ID(names[i])
		}
		if len(fences) == len(texts) {
			if n, err := strconv.ParseUint(fences[i], 10, 64); err == nil {
				out[i].Fence = event.Fence(n)
			}
		}
	}
	return out, nil
}

// listOf reads a string, a list of strings, or lists of token ids.
func listOf(raw json.RawMessage) []string {
	var one string
	if json.Unmarshal(raw, &one) == nil && one != "" {
		return []string{one}
	}
	var many []json.RawMessage
	if json.Unmarshal(raw, &many) != nil || len(many) == 0 {
		return nil
	}
	if c := many[0][0]; c >= '0' && c <= '9' { // one list of token ids
		return []string{string(raw)}
	}
	out := make([]string, len(many))
	for i, m := range many {
		out[i] = inputText(m)
	}
	return out
}

// choice is one choice of a completion.
type choice struct {
	Index        int     `json:"index"`
	Text         string  `json:"text"`
	FinishReason *string `json:"finish_reason"`
}

type message struct {
	Role    string `json:"role,omitempty"`
	Content string `json:"content"`
}

type chatChoice struct {
	Index        int      `json:"index"`
	Message      *message `json:"message,omitempty"`
	Delta        *message `json:"delta,omitempty"`
	FinishReason *string  `json:"finish_reason"`
}

func (e *Engine) servePlain(w http.ResponseWriter, r *http.Request, req request, kind task.Kind, items []backend.Item) {
	outcomes := e.Run(r.Context(), items)
	var total task.Usage
	choices := make([]any, len(outcomes))
	for i, o := range outcomes {
		if o.Err != nil {
			e.fail(w, o.Err)
			return
		}
		total.PromptTokens += o.Usage.PromptTokens
		total.CompletionTokens += o.Usage.CompletionTokens
		total.TotalTokens += o.Usage.TotalTokens
		choices[i] = plainChoice(kind, i, o.Output)
	}
	body := map[string]any{"id": "sim", "created": 0, "model": req.Model, "usage": total}
	switch kind {
	case task.Embedding:
		body["object"], body["data"] = "list", choices
	case task.Chat:
		body["object"], body["choices"] = "chat.completion", choices
	default:
		body["object"], body["choices"] = "text_completion", choices
	}
	reply(w, 200, body)
}

func plainChoice(kind task.Kind, i int, out *task.Output) any {
	switch kind {
	case task.Embedding:
		var vectors []json.RawMessage
		_ = json.Unmarshal(out.Embeddings, &vectors) // written by answer()
		return map[string]any{"object": "embedding", "index": i, "embedding": vectors[0]}
	case task.Chat:
		return chatChoice{Index: i, Message: &message{"assistant", out.Text}, FinishReason: &out.FinishReason}
	default:
		return choice{i, out.Text, &out.FinishReason}
	}
}

// fail answers a call that failed: with its status, with nonsense, or by
// breaking the connection, as a broken engine would.
func (e *Engine) fail(w http.ResponseWriter, err error) {
	f, _ := errors.AsType[*fault.Error](err)
	switch {
	case f == nil || f.Code == fault.Cancelled || f.Code == fault.Timeout:
		panic(http.ErrAbortHandler)
	case f.Status != 0:
		if f.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int((f.RetryAfter+time.Second-1)/time.Second)))
		}
		replyError(w, f.Status, f.Message)
	case strings.Contains(f.Message, "not what the protocol says"):
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"choices": [ {"index": 7, "te`)
	default: // cut
		w.Header().Set("Content-Length", "4096")
		_, _ = io.WriteString(w, `{"choices":[`)
		panic(http.ErrAbortHandler)
	}
}

func (e *Engine) serveStream(w http.ResponseWriter, r *http.Request, req request, kind task.Kind, item backend.Item) {
	rc := http.NewResponseController(w)
	began := false
	send := func(v any) {
		if !began {
			w.Header().Set("Content-Type", "text/event-stream")
			w.Header().Set("Cache-Control", "no-cache")
			began = true
		}
		_, _ = fmt.Fprintf(w, "data: %s\n\n", marshal(v)) // a lost client ends the context
		_ = rc.Flush()
	}
	item.Emit = func(p backend.Piece) { send(chunk(req.Model, kind, p.Text, nil)) }
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	out := e.Run(ctx, []backend.Item{item})[0]
	if out.Err != nil {
		if began { // a broken stream ends without a word
			panic(http.ErrAbortHandler)
		}
		e.fail(w, out.Err)
		return
	}
	send(chunk(req.Model, kind, "", &out.Output.FinishReason))
	if req.Options.IncludeUsage {
		send(map[string]any{"id": "sim", "object": "chunk", "created": 0, "model": req.Model, "choices": []any{}, "usage": out.Usage})
	}
	_, _ = io.WriteString(w, "data: [DONE]\n\n")
}

func chunk(model string, kind task.Kind, text string, finish *string) any {
	var c any = choice{0, text, finish}
	object := "text_completion"
	if kind == task.Chat {
		object = "chat.completion.chunk"
		c = chatChoice{Delta: &message{Content: text}, FinishReason: finish}
	}
	return map[string]any{"id": "sim", "object": object, "created": 0, "model": model, "choices": []any{c}}
}
