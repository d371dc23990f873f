// Package jsonbatch speaks the simplest batch protocol there is, for engines
// of one's own: POST {"model":…,"inputs":[…]} answers {"outputs":[…]}, one
// output per input, in order. An input is the task's payload: its text, its
// messages, or its list of inputs.
package jsonbatch

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend"
)

// Params say where the engine is and what it may take.
type Params struct {
	Name      string
	URL       string        // posted to as it stands
	APIKey    config.Secret // sent as a bearer token if set
	MaxBatch  int           // inputs in one call; default 32
	Timeout   time.Duration // of a call; default 2 min
	MaxAnswer int64         // bytes; default 32 MiB
	Transport http.RoundTripper
}

// Backend is one engine endpoint.
type Backend struct {
	p      Params
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
	if p.Timeout <= 0 {
		p.Timeout = 2 * time.Minute
	}
	if p.MaxAnswer <= 0 {
		p.MaxAnswer = 32 << 20
	}
	if p.Transport == nil {
		p.Transport = &http.Transport{DialContext: (&net.Dialer{Timeout: 3 * time.Second}).DialContext, MaxIdleConnsPerHost: 64, DisableCompression: true}
	}
	noRedirect := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Backend{p: p, client: &http.Client{Transport: p.Transport, CheckRedirect: noRedirect}}, nil
}

// Join implements backend.Backend: tasks of one model share a call.
func (b *Backend) Join(t *task.Task) (string, int) {
	params, err := json.Marshal(backend.Allowed(t)) // map keys come out sorted
	if err != nil {
		return string(t.ID), 1
	}
	return t.Model + "\x00" + string(params), b.p.MaxBatch
}

// Run implements backend.Backend.
func (b *Backend) Run(ctx context.Context, items []backend.Item) []backend.Outcome {
	ctx, stop := backend.Together(ctx, items)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, b.p.Timeout, backend.Silent(b.p.Name, b.p.Timeout))
	defer cancel()
	outputs, err := b.call(ctx, items)
	if err != nil {
		return backend.Fail(len(items), err)
	}
	out := make([]backend.Outcome, len(items))
	for i, v := range outputs {
		out[i].Output = outputOf(v, items[i].Emit)
	}
	backend.Left(items, out, b.p.Name)
	return out
}

// outputOf keeps an output as it is, and as text if it is one: whoever listens
// hears that in one piece.
func outputOf(v json.RawMessage, emit func(backend.Piece)) *task.Output {
	out := &task.Output{Value: v, FinishReason: "stop"}
	if json.Unmarshal(v, &out.Text) != nil {
		out.Text = ""
	}
	if emit != nil && out.Text != "" {
		emit(backend.Piece{Text: out.Text})
	}
	return out
}

func (b *Backend) call(ctx context.Context, items []backend.Item) ([]json.RawMessage, error) {
	body, err := json.Marshal(request{items[0].Task.Model, backend.Allowed(items[0].Task), inputs(items)})
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.p.URL, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("build request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	backend.Identify(req, items, b.p.APIKey.Reveal())
	resp, err := b.client.Do(req)
	if err != nil {
		return nil, backend.Broken(ctx, b.p.Name, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, b.p.MaxAnswer+1))
	switch {
	case err != nil:
		return nil, backend.Broken(ctx, b.p.Name, err)
	case resp.StatusCode != http.StatusOK:
		return nil, backend.Refused(b.p.Name, resp.StatusCode, resp.Header, len(raw))
	case int64(len(raw)) > b.p.MaxAnswer:
		return nil, backend.Oversize(b.p.Name, b.p.MaxAnswer)
	}
	var ans struct {
		Outputs []json.RawMessage `json:"outputs"`
	}
	if err := json.Unmarshal(raw, &ans); err != nil {
		return nil, backend.Nonsense(b.p.Name, fmt.Errorf("not a JSON object with outputs"))
	}
	if len(ans.Outputs) != len(items) {
		return nil, backend.Nonsense(b.p.Name, fmt.Errorf("%d outputs for %d inputs", len(ans.Outputs), len(items)))
	}
	return ans.Outputs, nil
}

type request struct {
	Model  string      `json:"model"`
	Params task.Params `json:"params,omitempty"`
	Inputs []any       `json:"inputs"`
}

func inputs(items []backend.Item) []any {
	out := make([]any, len(items))
	for i, it := range items {
		switch p := it.Task.Payload; {
		case p.Messages != nil:
			out[i] = p.Messages
		case p.Inputs != nil:
			out[i] = p.Inputs
		default:
			out[i] = p.Text
		}
	}
	return out
}

// Probe implements backend.Prober: an engine of one's own need not have a
// health route, so any answer at all will do.
func (b *Backend) Probe(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, b.p.URL, strings.NewReader(""))
	if err != nil {
		return fmt.Errorf("build request: %w", err)
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return backend.Broken(ctx, b.p.Name, err)
	}
	return resp.Body.Close()
}
