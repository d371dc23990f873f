package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/cmd/penstock/progress"
	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// LLM is the demo on a real model: real processes, a real Kafka, a real Redis
// and a real engine that speaks the OpenAI protocol.
type LLM struct {
	Params system.Params // Catalog is written by Run
	Engine string        // base URL of the engine
	Model  string        // as the engine calls it
	Slots  int           // answers the engine makes at once
	Tokens int           // length of an answer at most
	Out    io.Writer
}

const (
	llmPrompts  = 50
	llmStreamed = 20 // as chats over SSE; the others as prompt arrays
)

// Run submits the prompts, waits for every answer and prints what it measured.
func (d LLM) Run(ctx context.Context) error {
	prompts, err := Prompts()
	if err != nil {
		return err
	}
	prompts = prompts[:llmPrompts]
	d.Params.Catalog = d.catalog()
	s, err := system.Start(ctx, d.Params)
	if err != nil {
		return err
	}
	runErr := d.measure(ctx, s.Client(), prompts)
	if err := s.Stop(); runErr == nil {
		runErr = err
	}
	return runErr
}

func (d LLM) measure(ctx context.Context, cl *client.Client, prompts []api.SubmitRequest) error {
	d.printf("== %d chats, streamed over SSE, %d at once\n", llmStreamed, d.Slots)
	streamed, err := d.stream(ctx, cl, prompts[:llmStreamed])
	if err != nil {
		return err
	}
	d.printf("\n== %d prompts, submitted in one call, run as prompt arrays\n", len(prompts)-llmStreamed)
	batched, err := d.batch(ctx, cl, prompts[llmStreamed:])
	if err != nil {
		return err
	}
	if err := errors.Join(d.count(ctx, streamed), d.count(ctx, batched)); err != nil {
		return err
	}
	d.printf("\n")
	w := tabwriter.NewWriter(d.Out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "KIND\tTASKS\tTOKENS\tTOKENS/S\tFIRST TOKEN P50\tP99\tEND TO END P50\tP99")
	streamed.row(w, "streamed chat")
	batched.row(w, "prompt array")
	return w.Flush()
}

func (d LLM) printf(format string, args ...any) { fmt.Fprintf(d.Out, format, args...) }

// catalog has the one model. The batch is what the engine's slots take at once.
func (d LLM) catalog() string {
	return fmt.Sprintf(`models:
  - {id: %[1]s, pool: default, kinds: [chat, completion]}
pools:
  - name: default
    batch: {max_tasks: %[3]d}
    backends: [{name: llama.cpp, url: "openai+%[2]s", models: [%[1]s], concurrency: %[3]d}]
`, d.Model, d.Engine, d.Slots)
}

// sample is what one task took and made.
type sample struct {
	first, whole time.Duration
	text         string
	tokens       int // as the worker was told; see LLM.count
}

// samples are those of one kind, with the time all of them took together.
type samples struct {
	list    []sample
	elapsed time.Duration
}

func (s samples) row(w io.Writer, name string) {
	tokens := 0
	var first, whole []time.Duration
	for _, v := range s.list {
		tokens += v.tokens
		whole = append(whole, v.whole)
		if v.first > 0 {
			first = append(first, v.first)
		}
	}
	fmt.Fprintf(w, "%s\t%d\t%d\t%.0f\t%s\t%s\t%s\t%s\n", name, len(s.list), tokens,
		float64(tokens)/s.elapsed.Seconds(), quantile(first, 50), quantile(first, 99), quantile(whole, 50), quantile(whole, 99))
}

// quantile of a few samples: the nearest rank.
func quantile(list []time.Duration, q int) string {
	if len(list) == 0 {
		return "-"
	}
	slices.Sort(list)
	return list[min(len(list)-1, (len(list)*q+99)/100-1)].Round(time.Millisecond).String()
}

// stream runs chats, as many at once as the engine has slots, and prints the
// first of them as it is made.
func (d LLM) stream(ctx context.Context, cl *client.Client, prompts []api.SubmitRequest) (samples, error) {
	var mu sync.Mutex // guards out
	out := samples{}
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(d.Slots)
	for i, p := range prompts {
		show := io.Discard
		if i == 0 {
			show = d.Out
		}
		g.Go(func() error {
			v, err := d.chat(ctx, cl, p.Payload.Text, show)
			mu.Lock()
			defer mu.Unlock()
			out.list = append(out.list, v)
			return err
		})
	}
	err := g.Wait()
	out.elapsed = time.Since(began)
	return out, err
}

func (d LLM) chat(ctx context.Context, cl *client.Client, text string, show io.Writer) (sample, error) {
	messages, err := json.Marshal([]map[string]string{{"role": "user", "content": text}})
	if err != nil {
		return sample{}, err
	}
	began := time.Now()
	accepted, err := cl.Submit(ctx, api.SubmitRequest{
		Model: d.Model, Payload: task.Payload{Messages: messages}, Params: d.limits(), Stream: true, Class: task.Interactive,
	}, "")
	if err != nil {
		return sample{}, err
	}
	fmt.Fprintf(show, "   > %s\n   ", text)
	var v sample
	err = cl.Tail(ctx, accepted.TaskID, event.ID{}, func(e event.Event) error {
		switch {
		case e.Type == event.Delta:
			if v.first == 0 {
				v.first = time.Since(began)
			}
			_, err := io.WriteString(show, strings.ReplaceAll(e.Text, "\n", "\n   "))
			return err
		case e.Type.Terminal():
			v.whole = time.Since(began)
			fmt.Fprintln(show)
			return v.take(e)
		}
		return nil
	})
	return v, err
}

// take reads the answer of a terminal, which must be a success.
func (v *sample) take(e event.Event) error {
	if e.Type != event.Succeeded || e.Result == nil || e.Result.Output == nil {
		return fmt.Errorf("task %s ended as %s: %+v", e.TaskID, e.Type, e.Result)
	}
	v.text = e.Result.Output.Text
	if e.Result.Usage != nil {
		v.tokens = e.Result.Usage.CompletionTokens
	}
	return nil
}

// count asks the engine's tokenizer how long the answers are, where it has one:
// llama.cpp reports the usage of a prompt array's first prompt only.
func (d LLM) count(ctx context.Context, s samples) error {
	for i := range s.list {
		n, ok, err := d.tokenize(ctx, s.list[i].text)
		if err != nil || !ok {
			return err
		}
		s.list[i].tokens = n
	}
	return nil
}

// tokenize counts the tokens of a text; ok is false for an engine that does
// not offer to.
func (d LLM) tokenize(ctx context.Context, text string) (n int, ok bool, err error) {
	body, err := json.Marshal(map[string]string{"content": text})
	if err != nil {
		return 0, false, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.Engine+"/tokenize", bytes.NewReader(body))
	if err != nil {
		return 0, false, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, false, fmt.Errorf("count tokens: %w", err)
	}
	defer res.Body.Close()
	var out struct {
		Tokens []json.RawMessage `json:"tokens"`
	}
	if res.StatusCode != http.StatusOK || json.NewDecoder(res.Body).Decode(&out) != nil {
		return 0, false, nil
	}
	return len(out.Tokens), true, nil
}

func (d LLM) limits() task.Params {
	return task.Params{"max_tokens": json.RawMessage(fmt.Sprint(d.Tokens)), "temperature": json.RawMessage("0.2")}
}

func (d LLM) batch(ctx context.Context, cl *client.Client, prompts []api.SubmitRequest) (samples, error) {
	for i := range prompts {
		prompts[i].Model, prompts[i].Params = d.Model, d.limits()
	}
	began := time.Now()
	ids, err := submitBatch(ctx, cl, prompts)
	if err != nil {
		return samples{}, err
	}
	bar := progress.New(d.Out, len(ids))
	defer bar.Close()
	var out samples
	err = cl.TailMany(ctx, ids, func(e event.Event) error {
		if !e.Type.Terminal() {
			return nil
		}
		bar.Step()
		v := sample{whole: time.Since(began)}
		err := v.take(e)
		out.list = append(out.list, v)
		return err
	})
	out.elapsed = time.Since(began)
	return out, err
}

// submitBatch submits in one call; every task must be accepted.
func submitBatch(ctx context.Context, cl *client.Client, prompts []api.SubmitRequest) ([]task.ID, error) {
	res, err := cl.SubmitBatch(ctx, prompts)
	if err != nil {
		return nil, err
	}
	ids := make([]task.ID, 0, len(res.Items))
	for _, item := range res.Items {
		if item.Accepted == nil {
			return nil, fmt.Errorf("prompt %d was refused: %d %+v", item.Index, item.Code, item.Error)
		}
		ids = append(ids, item.Accepted.TaskID)
	}
	return ids, nil
}
