package openaihttp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend"
)

// Params say where the engine is and what it may take.
type Params struct {
	Name      string        // in errors and metrics
	URL       string        // base, with or without /v1
	APIKey    config.Secret // sent as a bearer token if set
	MaxBatch  int           // prompts in one call; default 32
	FirstByte time.Duration // until an answer or a stream's first event; default 2 min
	Idle      time.Duration // between a stream's events; default 30 s
	MaxAnswer int64         // bytes of an answer; default 32 MiB
	MediaURLs bool          // the engine may fetch media from URLs that callers name
	// Streamed has every answer but embeddings come as a stream, also where
	// nobody watches it, and each in a call of its own. An engine that does not
	// see that the caller of a plain answer is gone, as llama.cpp's server, so
	// stops a cancelled one at once.
	Streamed  bool
	Transport http.RoundTripper
}

// Backend is one engine endpoint.
type Backend struct {
	p      Params
	base   string
	client *http.Client
}

// New returns a backend. It does no I/O.
func New(p Params) (*Backend, error) {
	u, err := url.Parse(p.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("backend %s: %q is not an http(s) URL", p.Name, p.URL)
	}
	if p.MaxBatch <= 0 {
		p.MaxBatch = 32
	}
	if p.FirstByte <= 0 {
		p.FirstByte = 2 * time.Minute
	}
	if p.Idle <= 0 {
		p.Idle = 30 * time.Second
	}
	if p.MaxAnswer <= 0 {
		p.MaxAnswer = 32 << 20
	}
	if p.Transport == nil {
		p.Transport = &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
			TLSHandshakeTimeout: 5 * time.Second,
			MaxIdleConnsPerHost: 64,
			IdleConnTimeout:     90 * time.Second,
			DisableCompression:  true, // an answer must not unpack to more than was counted
		}
	}
	base := strings.TrimSuffix(strings.TrimSuffix(u.String(), "/"), "/v1")
	noRedirect := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Backend{p: p, base: base, client: &http.Client{Transport: p.Transport, CheckRedirect: noRedirect}}, nil
}

// Join implements backend.Backend. Plain completions of one prompt, and
// embeddings, share a call with others of the same model and parameters; an
// embedding of many inputs with fewer others, so that the call stays within
// MaxBatch.
func (b *Backend) Join(t *task.Task) (string, int) {
	most := b.p.MaxBatch
	switch t.Kind {
	case task.Embedding:
		size := 1 // inputs, rounded up to a power of two: near sizes share a key
		for size < len(t.Payload.Inputs) {
			size *= 2
		}
		most /= size
	case task.Completion:
		if t.Stream || b.p.Streamed || t.Payload.Inputs != nil || t.Params.Int("n", 1) != 1 || t.Params.Int("best_of", 1) != 1 {
			most = 1
		}
	default:
		most = 1
	}
	if most <= 1 {
		return string(t.ID), 1
	}
	var key strings.Builder
	fmt.Fprintf(&key, "%s\x00%s\x00%d", t.Model, t.Kind, most)
	params := backend.Allowed(t)
	for _, name := range slices.Sorted(maps.Keys(params)) {
		key.WriteString("\x00" + name + "\x00" + string(params[name]))
	}
	return key.String(), most
}

// Run implements backend.Backend.
func (b *Backend) Run(ctx context.Context, items []backend.Item) []backend.Outcome {
	ctx, stop := backend.Together(ctx, items)
	defer stop()
	outs := b.run(ctx, items)
	backend.Left(items, outs, b.p.Name)
	return outs
}

func (b *Backend) run(ctx context.Context, items []backend.Item) []backend.Outcome {
	first := items[0].Task
	if err := backend.RefuseURLs(first.Payload.Messages); err != nil && !b.p.MediaURLs {
		return backend.Fail(len(items), err)
	}
	switch {
	case first.Kind == task.Embedding:
		return b.embed(ctx, items)
	case len(items) == 1 && (b.p.Streamed || items[0].Emit != nil && first.Stream):
		return []backend.Outcome{b.stream(ctx, items[0])}
	case first.Kind == task.Chat, first.Payload.Inputs != nil, first.Params.Int("n", 1) != 1:
		return b.single(ctx, items)
	default:
		return b.complete(ctx, items)
	}
}

// single asks for one answer that is the task's alone.
func (b *Backend) single(ctx context.Context, items []backend.Item) []backend.Outcome {
	if len(items) != 1 {
		return backend.Fail(len(items), fault.New(fault.Internal, "%d tasks in a call that takes one", len(items)))
	}
	var ans answer
	if err := b.call(ctx, items, body(items[0].Task, promptOf(items[0].Task)), &ans); err != nil {
		return backend.Fail(1, err)
	}
	out, err := ans.output(items[0].Task)
	if err != nil {
		return backend.Fail(1, backend.Nonsense(b.p.Name, err))
	}
	return []backend.Outcome{{Output: out, Usage: ans.Usage}}
}

// complete asks for many completions by one prompt array.
func (b *Backend) complete(ctx context.Context, items []backend.Item) []backend.Outcome {
	prompts := make([]string, len(items))
	for i, it := range items {
		prompts[i] = it.Task.Payload.Text
	}
	var prompt any = prompts
	if len(prompts) == 1 {
		prompt = prompts[0] // some engines know no array
	}
	var ans answer
	if err := b.call(ctx, items, body(items[0].Task, prompt), &ans); err != nil {
		return backend.Fail(len(items), err)
	}
	outs := make([]backend.Outcome, len(items))
	if len(ans.Choices) != len(items) {
		return backend.Fail(len(items), backend.Nonsense(b.p.Name, fmt.Errorf("%d choices for %d prompts", len(ans.Choices), len(items))))
	}
	for _, raw := range ans.Choices {
		c, err := parseChoice(raw)
		if err == nil && (c.Index < 0 || c.Index >= len(items) || outs[c.Index].Output != nil) {
			err = fmt.Errorf("choice index %d of %d, or twice", c.Index, len(items))
		}
		if err == nil && c.FinishReason == "" {
			err = errors.New("a choice without finish_reason")
		}
		if err != nil {
			return backend.Fail(len(items), backend.Nonsense(b.p.Name, err))
		}
		outs[c.Index].Output = c.output(raw)
	}
	shareUsage(outs, ans.Usage)
	return outs
}

// shareUsage gives each item its part of a call's token count. The protocol
// counts the call, not the prompts, so for more than one the parts are
// estimates that add up to the engine's figure; llama.cpp counts only its first
// prompt, and the estimate shares that fault.
func shareUsage(outs []backend.Outcome, total *task.Usage) {
	if total == nil {
		return
	}
	n := len(outs)
	part := func(sum, i int) int { return sum*(i+1)/n - sum*i/n }
	for i := range outs {
		u := task.Usage{PromptTokens: part(total.PromptTokens, i), CompletionTokens: part(total.CompletionTokens, i)}
		u.TotalTokens = u.PromptTokens + u.CompletionTokens
		outs[i].Usage = &u
	}
}

// embed asks for the embeddings of all items by input arrays.
func (b *Backend) embed(ctx context.Context, items []backend.Item) []backend.Outcome {
	var inputs []json.RawMessage
	counts := make([]int, len(items))
	for i, it := range items {
		own := it.Task.Payload.Inputs
		if own == nil {
			own = []json.RawMessage{mustJSON(it.Task.Payload.Text)}
		}
		counts[i] = len(own)
		inputs = append(inputs, own...)
	}
	vectors, usage, err := b.vectors(ctx, items, inputs)
	if err != nil {
		return backend.Fail(len(items), err)
	}
	outs := make([]backend.Outcome, len(items))
	for i, n := range counts {
		outs[i].Output = &task.Output{Embeddings: mustJSON(vectors[:n])}
		vectors = vectors[n:]
	}
	shareUsage(outs, usage)
	return outs
}

// vectors embeds inputs, at most MaxBatch in one call: engines refuse more, and
// a caller may send thousands.
func (b *Backend) vectors(ctx context.Context, items []backend.Item, inputs []json.RawMessage) ([]json.RawMessage, *task.Usage, error) {
	out := make([]json.RawMessage, 0, len(inputs))
	var usage *task.Usage
	for part := range slices.Chunk(inputs, b.p.MaxBatch) {
		var ans answer
		if err := b.call(ctx, items, body(items[0].Task, part), &ans); err != nil {
			return nil, nil, err
		}
		vectors, err := ans.embeddings(len(part))
		if err != nil {
			return nil, nil, backend.Nonsense(b.p.Name, err)
		}
		out = append(out, vectors...)
		usage = plus(usage, ans.Usage)
	}
	return out, usage, nil
}

func plus(a, b *task.Usage) *task.Usage {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return &task.Usage{
		PromptTokens:     a.PromptTokens + b.PromptTokens,
		CompletionTokens: a.CompletionTokens + b.CompletionTokens,
		TotalTokens:      a.TotalTokens + b.TotalTokens,
	}
}

// call posts a body and decodes the answer, or says what went wrong.
func (b *Backend) call(ctx context.Context, items []backend.Item, body map[string]any, ans *answer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, b.p.FirstByte,
		backend.Silent(b.p.Name, b.p.FirstByte))
	defer cancel()
	resp, err := b.post(ctx, items, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, b.p.MaxAnswer+1))
	if err != nil {
		return backend.Broken(ctx, b.p.Name, err)
	}
	if int64(len(raw)) > b.p.MaxAnswer {
		return backend.Oversize(b.p.Name, b.p.MaxAnswer)
	}
	if err := json.Unmarshal(raw, ans); err != nil {
		return backend.Nonsense(b.p.Name, errors.New("not JSON of the protocol's shape"))
	}
	if ans.Error != nil { // vLLM may answer 200 and mean 503
		return backend.Refused(b.p.Name, ans.Error.status(), nil, len(raw))
	}
	return nil
}

// post sends a request and returns an answer with status 200.
func (b *Backend) post(ctx context.Context, items []backend.Item, body map[string]any) (*http.Response, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.base+path(items[0].Task.Kind), bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("build request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	backend.Identify(req, items, b.p.APIKey.Reveal())
	resp, err := b.client.Do(req)
	if err != nil {
		return nil, backend.Broken(ctx, b.p.Name, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	n, _ := io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
	return nil, backend.Refused(b.p.Name, resp.StatusCode, resp.Header, int(n))
}

func path(k task.Kind) string {
	switch k {
	case task.Chat:
		return "/v1/chat/completions"
	case task.Embedding:
		return "/v1/embeddings"
	default:
		return "/v1/completions"
	}
}

// Probe implements backend.Prober: an engine that lists its models is well.
func (b *Backend) Probe(ctx context.Context) error {
	_, err := b.Models(ctx)
	return err
}

// Models implements backend.Lister.
func (b *Backend) Models(ctx context.Context) ([]string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.base+"/v1/models", nil)
	if err != nil {
		return nil, fmt.Errorf("build request: %w", err)
	}
	if b.p.APIKey != "" {
		req.Header.Set("Authorization", "Bearer "+b.p.APIKey.Reveal())
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return nil, backend.Broken(ctx, b.p.Name, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, backend.Refused(b.p.Name, resp.StatusCode, resp.Header, 0)
	}
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&list); err != nil {
		return nil, backend.Nonsense(b.p.Name, errors.New("the list of models is not JSON"))
	}
	out := make([]string, len(list.Data))
	for i, m := range list.Data {
		out[i] = m.ID
	}
	return out, nil
}
