package simulated

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

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
//	GET    /v1/models/{id}            POST /batch (the JSON batch protocol)
//	GET    /health                    GET  /metrics
//	GET    /sim/faults                POST /sim/faults
//	DELETE /sim/faults                DELETE /sim/faults/{id}
//	GET    /sim/executions            POST /v1/moderations (a word list)
func (e *Engine) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", e.serveModels)
	mux.HandleFunc("GET /v1/models/{id...}", e.serveModel)
	mux.HandleFunc("POST /batch", e.serveBatch)
	mux.HandleFunc("POST /v1/chat/completions", e.serveCall(task.Chat))
	mux.HandleFunc("POST /v1/completions", e.serveCall(task.Completion))
	mux.HandleFunc("POST /v1/embeddings", e.serveCall(task.Embedding))
	mux.HandleFunc("POST /v1/moderations", e.serveModeration)
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, map[string]string{"status": "ok"}) })
	mux.HandleFunc("GET /metrics", e.serveMetrics)
	mux.HandleFunc("GET /sim/executions", func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, e.Executions()) })
	mux.HandleFunc("GET /sim/faults", e.listFaults)
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
	data := make([]any, len(e.p.Models))
	for i, id := range e.p.Models {
		data[i] = modelOf(id)
	}
	reply(w, 200, map[string]any{"object": "list", "data": data})
}

func modelOf(id string) any {
	return map[string]any{"id": id, "object": "model", "created": 0, "owned_by": "penstock"}
}

// serveMetrics shows the slots, by the names llama.cpp's server gives them.
func (e *Engine) serveMetrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	_, _ = fmt.Fprintf(w, "# TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing %d\n"+
		"# TYPE llamacpp:requests_deferred gauge\nllamacpp:requests_deferred %d\n", e.processing.Load(), e.deferred.Load())
}

// faultBody is a fault with its durations as Go writes them.
type faultBody struct {
	Fault
	Delay      string `json:"delay,omitempty"`
	RetryAfter string `json:"retry_after,omitempty"`
}

func (e *Engine) listFaults(w http.ResponseWriter, _ *http.Request) {
	out := []faultBody{}
	for _, f := range e.faults.List() {
		b := faultBody{Fault: f}
		if f.Delay > 0 {
			b.Delay = f.Delay.String()
		}
		if f.RetryAfter > 0 {
			b.RetryAfter = f.RetryAfter.String()
		}
		out = append(out, b)
	}
	reply(w, 200, out)
}

func (e *Engine) setFault(w http.ResponseWriter, r *http.Request) {
	var body faultBody
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
	MaxTokens json.RawMessage `json:"max_tokens"`
	MaxNew    json.RawMessage `json:"max_completion_tokens"`
	N         json.RawMessage `json:"n"`
	Tools     json.RawMessage `json:"tools"`
	Choice    json.RawMessage `json:"tool_choice"`
	Encoding  json.RawMessage `json:"encoding_format"`
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
		if err != nil {
			replyError(w, 400, "not a request: "+err.Error())
			return
		}
		texts, err := req.texts(kind)
		if err != nil {
			replyError(w, 400, err.Error())
			return
		}
		e.note(r.Header, len(texts))
		if req.Stream && kind != task.Embedding {
			e.serveStream(w, r, req, kind, texts)
			return
		}
		e.servePlain(w, r, req, kind, texts)
	}
}

// note logs the executions that a call names, or as many without a name as it
// has prompts.
func (e *Engine) note(h http.Header, prompts int) {
	if h.Get(backend.HeaderTask) == "" {
		for range prompts {
			e.executions.add("", "")
		}
		return
	}
	fences := strings.Split(h.Get(backend.HeaderFence), ",")
	for i, name := range strings.Split(h.Get(backend.HeaderTask), ",") {
		fence := ""
		if i < len(fences) {
			fence = fences[i]
		}
		e.executions.add(name, fence)
	}
}

// texts is what a call asks: a prompt array is many.
func (q request) texts(kind task.Kind) ([]string, error) {
	var out []string
	switch {
	case kind == task.Chat && len(q.Messages) == 0:
		return nil, errors.New("messages is required")
	case kind == task.Chat:
		out = []string{compact(q.Messages)}
	case kind == task.Completion:
		out = listOf(q.Prompt)
	default:
		out = listOf(q.Input)
	}
	if len(out) == 0 {
		return nil, errors.New("nothing to do: prompt or input is empty")
	}
	return out, nil
}

// task is the one that asks for the texts.
func (q request) task(kind task.Kind, texts ...string) *task.Task {
	t := &task.Task{Kind: kind, Model: q.Model, Stream: q.Stream, Params: task.Params{}}
	for name, v := range map[string]json.RawMessage{
		"max_tokens": q.MaxTokens, "max_completion_tokens": q.MaxNew, "n": q.N, "encoding_format": q.Encoding,
		"tools": q.Tools, "tool_choice": q.Choice,
	} {
		if len(v) > 0 && string(v) != "null" {
			t.Params[name] = v
		}
	}
	if len(texts) == 1 {
		t.Payload.Text = texts[0]
		return t
	}
	for _, text := range texts {
		t.Payload.Inputs = append(t.Payload.Inputs, marshal(text))
	}
	return t
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
	Role      string     `json:"role,omitempty"`
	Content   string     `json:"content"`
	ToolCalls []toolCall `json:"tool_calls,omitempty"`
}

type chatChoice struct {
	Index        int      `json:"index"`
	Message      *message `json:"message,omitempty"`
	Delta        *message `json:"delta,omitempty"`
	FinishReason *string  `json:"finish_reason"`
}

func (e *Engine) servePlain(w http.ResponseWriter, r *http.Request, req request, kind task.Kind, texts []string) {
	item := backend.Item{Task: req.task(kind, texts...)}
	out := e.run(r.Context(), []backend.Item{item})[0]
	if out.Err != nil {
		e.fail(w, r, out.Err, func() []byte {
			out.Output, out.Usage = callOf(item, e.p.Tokens).answer()
			return marshal(plainBody(req, kind, out))
		})
		return
	}
	reply(w, 200, plainBody(req, kind, out))
}

func plainBody(req request, kind task.Kind, out backend.Outcome) map[string]any {
	body := map[string]any{"id": "sim", "created": 0, "model": req.Model, "usage": out.Usage}
	switch kind {
	case task.Embedding:
		body["object"], body["data"] = "list", embeddings(out.Output)
	case task.Chat:
		body["object"], body["choices"] = "chat.completion", wholeChoices(kind, out.Output)
	default:
		body["object"], body["choices"] = "text_completion", wholeChoices(kind, out.Output)
	}
	return body
}

func embeddings(out *task.Output) []any {
	var vectors []json.RawMessage
	_ = json.Unmarshal(out.Embeddings, &vectors) // written by embed()
	data := make([]any, len(vectors))
	for i, v := range vectors {
		data[i] = map[string]any{"object": "embedding", "index": i, "embedding": v}
	}
	return data
}

func wholeChoices(kind task.Kind, out *task.Output) any {
	if out.Choices != nil {
		return out.Choices
	}
	return []any{wholeChoice(kind, 0, out.Text, &out.FinishReason)}
}

func wholeChoice(kind task.Kind, i int, text string, finish *string) any {
	if kind == task.Chat {
		return chatChoice{Index: i, Message: &message{Role: "assistant", Content: text}, FinishReason: finish}
	}
	return choice{i, text, finish}
}

func (e *Engine) serveStream(w http.ResponseWriter, r *http.Request, req request, kind task.Kind, texts []string) {
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
	item := backend.Item{Task: req.task(kind, texts...)}
	item.Emit = func(p backend.Piece) { send(pieceChunk(req.Model, kind, p)) }
	out := e.run(r.Context(), []backend.Item{item})[0]
	if out.Err != nil {
		if began { // a broken stream ends without a word
			panic(http.ErrAbortHandler)
		}
		e.fail(w, r, out.Err, func() []byte {
			w.Header().Set("Content-Type", "text/event-stream")
			answer, _ := callOf(item, e.p.Tokens).answer()
			return slices.Concat([]byte("data: "), marshal(chunk(req.Model, kind, 0, answer.Text, &answer.FinishReason)), []byte("\n\ndata: [DONE]\n\n"))
		})
		return
	}
	for i := range callOf(item, e.p.Tokens).size() {
		send(chunk(req.Model, kind, i, "", &out.Output.FinishReason))
	}
	if req.Options.IncludeUsage {
		send(map[string]any{"id": "sim", "object": "chunk", "created": 0, "model": req.Model, "choices": []any{}, "usage": out.Usage})
	}
	_, _ = io.WriteString(w, "data: [DONE]\n\n")
}

func chunk(model string, kind task.Kind, index int, text string, finish *string) any {
	var c any = choice{index, text, finish}
	object := "text_completion"
	if kind == task.Chat {
		object = "chat.completion.chunk"
		c = chatChoice{Index: index, Delta: &message{Content: text}, FinishReason: finish}
	}
	return map[string]any{"id": "sim", "object": object, "created": 0, "model": model, "choices": []any{c}}
}

// serveBatch speaks the JSON batch protocol: the answers to inputs, in order.
func (e *Engine) serveBatch(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Model  string            `json:"model"`
		Inputs []json.RawMessage `json:"inputs"`
		Params task.Params       `json:"params"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&req); err != nil || len(req.Inputs) == 0 {
		replyError(w, 400, "want {\"model\":…,\"inputs\":[…]}")
		return
	}
	e.note(r.Header, len(req.Inputs))
	items := make([]backend.Item, len(req.Inputs))
	for i, in := range req.Inputs {
		items[i].Task = &task.Task{Kind: task.Completion, Model: req.Model, Params: req.Params, Payload: task.Payload{Text: compact(in)}}
		if text := ""; json.Unmarshal(in, &text) == nil {
			items[i].Task.Payload.Text = text
		}
	}
	outputs := make([]string, len(items))
	for i, o := range e.run(r.Context(), items) {
		if o.Err != nil {
			e.fail(w, r, o.Err, func() []byte { return []byte(`{"outputs":["short"]}`) })
			return
		}
		outputs[i] = o.Output.Text
	}
	reply(w, 200, map[string]any{"outputs": outputs})
}

func (e *Engine) serveModel(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if !slices.Contains(e.p.Models, id) {
		replyError(w, 404, "no such model")
		return
	}
	reply(w, 200, modelOf(id))
}
