package dev_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/auth"
	"github.com/penstock/penstock/internal/catalog"
	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/devstack"
	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/httpserver"
	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/repeat"
	"github.com/penstock/penstock/internal/seats"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/producer/cancel"
	"github.com/penstock/penstock/producer/httpapi"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/producer/rules"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/spec"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/webhook"
	"github.com/penstock/penstock/worker/attempt"
	"github.com/penstock/penstock/worker/backend/openaihttp"
)

// recordedChat is a streamed answer as engines send it: a role, text with and
// without log probabilities, calls of tools, an end, the usage.
const recordedChat = `data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}` + "\n\n" +
	`data: {"choices":[{"index":0,"delta":{"content":"Grüß "},"logprobs":{"content":[{"token":"Grüß "}]}}]}` + "\n\n: ping\n\n" +
	`data: {"choices":[{"index":0,"delta":{"content":"Gott"}}]}` + "\r\n\r\n" +
	`data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{\"a\":"}}]}}]}` + "\n\n" +
	`data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]}}]}` + "\n\n" +
	`data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}` + "\n\n" +
	`data: {"choices":[],"usage":{"prompt_tokens":3}}` + "\n\ndata: [DONE]\n\n"

// recordedCompletion is a streamed answer with two choices, side by side.
const recordedCompletion = `data: {"choices":[{"index":0,"text":"one ","logprobs":null,"finish_reason":null}]}` + "\n\n" +
	`data: {"choices":[{"index":1,"text":"eins "}]}` + "\n\n" +
	`data: {"choices":[{"index":0,"text":"two","finish_reason":"stop"}]}` + "\n\n" +
	`data: {"choices":[{"index":1,"text":"zwei"}]}` + "\n\n" +
	`data: {"choices":[{"index":1,"text":"","finish_reason":"length"}]}` + "\n\n" +
	`data: {"choices":[],"usage":{"prompt_tokens":3}}` + "\n\ndata: [DONE]\n\n"

// cut says where and how an engine's answer breaks off, and whether the next
// attempt gets all of it. It travels as the prompt.
type cut struct {
	At    int
	Abort bool // the connection is cut; else it ends cleanly
	Heals bool
}

// broken is an engine whose answers break off as their prompts say.
type broken struct{ seen sync.Map }

func (b *broken) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, _ := io.ReadAll(r.Body) // what is missing is no cut
	answer, text := recordedChat, ""
	var asked struct {
		Prompt   string
		Messages []struct{ Content string }
	}
	if json.Unmarshal(raw, &asked) == nil && len(asked.Messages) > 0 {
		text = asked.Messages[0].Content
	} else {
		answer, text = recordedCompletion, asked.Prompt
	}
	var c cut
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		http.Error(w, "no cut", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	if _, again := b.seen.LoadOrStore(r.URL.Path+text, true); again && c.Heals {
		_, _ = io.WriteString(w, answer) // the reader may be gone
		return
	}
	_, _ = io.WriteString(w, answer[:c.At])
	if c.Abort {
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

// road is the way of an answer from an engine to a client of the OpenAI API: the
// engine's adapter, attempts with their token streams, the event log, the
// projection, a follower and the HTTP face, all as they are. What lies between
// an accepted task and its attempts is left out, since its breakers and budgets
// would keep thousands of failures apart: a task is tried at once, and twice.
type road struct {
	runner *attempt.Runner
	call   attempt.Call
	store  *taskstore.Store
	ctx    context.Context
	wg     sync.WaitGroup

	mu   sync.Mutex // guards next
	next int64      // offset of the next terminal
}

var _ ingest.Publisher = (*road)(nil)

func (r *road) Task(_ context.Context, t *task.Task, _ string, _ task.Progress) (tasktopic.Ack, error) {
	r.wg.Go(func() { r.run(t) })
	return tasktopic.Ack{}, nil
}

func (r *road) TaskAsync(ctx context.Context, t *task.Task, pool string, p task.Progress, done func(tasktopic.Ack, error)) {
	done(r.Task(ctx, t, pool, p))
}

func (r *road) WebhookAsync(_ *webhook.Record, done func(tasktopic.Ack, error)) {
	done(tasktopic.Ack{}, nil)
}

func (r *road) BrokerNow() time.Time { return time.Now() }

func (r *road) run(t *task.Task) {
	var res attempt.Result
	for n := range 2 {
		fence, err := event.NewFence(0, 0, 1, n)
		if err != nil {
			panic(err)
		}
		try := &attempt.Try{Task: t, Fence: fence, N: n + 1, Again: n > 0}
		if res = r.runner.Do(r.ctx, r.call, []*attempt.Try{try})[0]; res.Err == nil {
			break
		}
	}
	end := &terminal.Terminal{
		SchemaVersion: task.SchemaVersion, TaskID: t.ID, Tenant: t.Tenant, Status: task.Succeeded, Generation: new(uint8),
		Output: res.Output, Usage: res.Usage, CreatedAt: t.Timestamp, EndedAt: time.Now(),
	}
	if res.Err != nil {
		end.Status, end.Error = task.Dead, &terminal.Error{Code: "unavailable", Message: "the engine's answer broke off"}
	}
	_, _ = r.Terminal(r.ctx, end) // a test that is over needs none
}

// Terminal brings a terminal into the projection, as the projector would.
func (r *road) Terminal(ctx context.Context, t *terminal.Terminal) (tasktopic.Ack, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.store.Apply(ctx, 0, r.next, r.next+1, []taskstore.Applied{{Terminal: t, Offset: r.next}})
	if err == nil {
		r.next++
	}
	return tasktopic.Ack{}, err
}

// nothing is what an ingress without limits and memory stands on.
type nothing struct{}

func (nothing) Task(string) error { return nil }
func (nothing) Over() bool        { return false }

func (nothing) Route(task.ID, rules.Message) (string, bool) { return "", false }

type forgetful struct{}

func (forgetful) Fingerprint(context.Context, string, string, string, task.ID) (string, task.ID, error) {
	return "", "", nil
}

func (forgetful) Known(_ context.Context, ids []task.ID) ([]bool, error) {
	return make([]bool, len(ids)), nil
}
func (forgetful) Queued(context.Context, []ingest.Hint) error { return nil }

func (forgetful) Task(context.Context, task.ID) (api.Task, bool, error) {
	return api.Task{}, false, nil
}
func (forgetful) SignalCancel(context.Context, task.ID) error { return nil }

// openRoad returns the URL of the HTTP face.
func openRoad(t *testing.T, engine string) string {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	redis, err := devstack.OpenStore(devstack.StoreParams{})
	must(err)
	t.Cleanup(redis.Close)
	cfg := redisclient.DefaultConfig()
	cfg.URL = config.Secret(redis.URL())
	rdb, err := redisclient.New(cfg)
	must(err)
	t.Cleanup(func() { _ = rdb.Close() })
	store := taskstore.New(rdb, taskstore.Params{Partitions: 1})
	must(store.Rebuild(t.Context(), 0, 0, 0))
	events := eventlog.New(rdb, eventlog.Params{Partitions: 1})
	log, reg := slog.New(slog.DiscardHandler), prometheus.NewRegistry()

	b, err := openaihttp.New(openaihttp.Params{Name: "engine", URL: engine})
	must(err)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	r := &road{
		ctx: ctx, store: store, call: attempt.Call{Backend: b, Name: "engine"},
		runner: attempt.NewRunner(attempt.Params{Store: store, Log: events, Logger: log, Metrics: reg, Worker: "w", TokenEvery: -1}),
	}
	follower := follow.New(store, events, follow.Params{Service: "producer"})
	r.wg.Go(func() { r.runner.Run(ctx) })
	r.wg.Go(func() { _ = follower.Run(ctx) }) // ends with ctx
	t.Cleanup(func() { stop(); r.wg.Wait() })

	minter, err := task.NewMinter(task.Secret{Key: []byte("0123456789abcdef")})
	must(err)
	models := &catalog.Catalog{Models: []catalog.Model{{ID: "m", Pool: "default", Kinds: []task.Kind{task.Chat, task.Completion}}}}
	metrics, claims := ingest.NewMetrics(reg), claimcheck.New(nil, claimcheck.Params{})
	intake := ingest.New(ingest.Deps{
		Minter: minter, Catalog: models, Router: nothing{}, Admission: nothing{}, Backlog: nothing{}, Publisher: r, Memory: forgetful{},
		Claims: claims, Hints: ingest.NewHints(forgetful{}, metrics, log), Metrics: metrics, Log: log,
	}, ingest.Params{MaxAge: time.Hour})
	gone := func(task.ID, time.Time) bool { return false }
	face, err := httpapi.New(httpapi.Deps{
		Intake: intake, Metrics: metrics, Limits: admit.New(admit.Params{}, reg), Waiter: follower, Results: claims, Catalog: models,
		Cancels: cancel.New(minter, r, forgetful{}, follower, cancel.Params{Gone: gone}, log),
		Auth:    auth.Dev{}, Schemas: spec.FS, Drain: ctx,
		WatchFunc: func(ctx context.Context, id task.ID) (httpapi.Events, error) {
			return follower.FollowMany(ctx, []follow.Watch{{ID: id}})
		},
		Repeats: repeat.New(rdb), Seats: seats.New(seats.Params{All: 1000, PerTenant: 1000}), Registry: reg, Log: log,
	})
	must(err)
	server := httpserver.New(httpserver.DefaultConfig(), log, reg)
	face.Register(server.Echo())
	web := httptest.NewServer(server.Echo())
	t.Cleanup(web.Close)
	return web.URL
}

// told is what a client makes of a stream, as the SDKs do.
type told struct {
	text   [2]string
	tools  string
	finish [2]string
	done   bool   // [DONE] came
	failed string // code of an error, as the last event or as the answer
	cut    bool   // the connection broke
}

func read(t *testing.T, base, path, body string) told {
	t.Helper()
	res, err := http.Post(base+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Errorf("%s: %v", body, err)
		return told{cut: true}
	}
	defer res.Body.Close()
	var out told
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if res.StatusCode != http.StatusOK {
			data, ok = lines.Text(), true
		}
		switch {
		case !ok:
		case data == "[DONE]":
			out.done = true
		default:
			out.add(t, data)
		}
	}
	out.cut = lines.Err() != nil
	return out
}

func (o *told) add(t *testing.T, data string) {
	t.Helper()
	var c struct {
		Choices []struct {
			Index int
			Text  string
			Delta struct {
				Content   string
				ToolCalls []struct {
					Function struct{ Name, Arguments string }
				} `json:"tool_calls"`
			}
			FinishReason string `json:"finish_reason"`
		}
		Error struct{ Code string }
	}
	if err := json.Unmarshal([]byte(data), &c); err != nil {
		t.Errorf("%v in %s", err, data)
	}
	o.failed += c.Error.Code
	for _, one := range c.Choices {
		o.text[one.Index] += one.Text + one.Delta.Content
		o.finish[one.Index] += one.FinishReason
		for _, call := range one.Delta.ToolCalls {
			o.tools += call.Function.Name + call.Function.Arguments
		}
	}
}

// judge says how a stream ended; a partial answer that looks whole is a fault.
func (o *told) judge(whole told) (outcome string, err error) {
	switch {
	case o.done && o.failed == "" && !o.cut:
		o.done = false
		if *o != whole {
			return "", fmt.Errorf("%+v was told as if it were whole", *o)
		}
		return "whole", nil
	case o.done, o.finish != [2]string{}:
		return "", fmt.Errorf("it ended, and failed as %q", o.failed)
	case o.failed == "" && !o.cut:
		return "", errors.New("a clean end without a word")
	case o.failed == "generation_interrupted":
		return "interrupted", nil
	}
	return "failed", nil
}

// TestNoCutOfAnAnswerIsASuccess cuts the engine's answer at every byte, by a
// clean end and here and there by a broken connection, for every attempt or for
// the first one only.
func TestNoCutOfAnAnswerIsASuccess(t *testing.T) {
	engine := httptest.NewServer(new(broken))
	t.Cleanup(engine.Close)
	base := openRoad(t, engine.URL)
	for name, tc := range map[string]struct {
		path, body, recorded string
		whole                told
	}{
		"chat": {
			"/v1/chat/completions", `{"model":"m","stream":true,"logprobs":true,"messages":[{"role":"user","content":%s}]}`, recordedChat,
			told{text: [2]string{"Grüß Gott"}, tools: `f{"a":1}`, finish: [2]string{"tool_calls"}},
		},
		"completions": {
			"/v1/completions", `{"model":"m","stream":true,"n":2,"prompt":%s}`, recordedCompletion,
			told{text: [2]string{"one two", "eins zwei"}, finish: [2]string{"stop", "length"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var whole, interrupted, failed atomic.Int64
			counts := map[string]*atomic.Int64{"whole": &whole, "interrupted": &interrupted, "failed": &failed}
			cuts := make(chan cut)
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					for c := range cuts {
						prompt, _ := json.Marshal(c) // plain values
						got := read(t, base, tc.path, fmt.Sprintf(tc.body, strconv.Quote(string(prompt))))
						outcome, err := got.judge(tc.whole)
						if err != nil {
							t.Errorf("cut %s after %q: %v", prompt, tc.recorded[:c.At], err)
							continue
						}
						counts[outcome].Add(1)
					}
				})
			}
			for at := range len(tc.recorded) + 1 {
				cuts <- cut{At: at, Heals: at%2 == 0} // a clean end is the worse one
				if at%8 < 2 {
					cuts <- cut{At: at, Heals: at%2 == 0, Abort: true}
				}
			}
			close(cuts)
			wg.Wait()
			t.Logf("%d whole, %d interrupted, %d failed", whole.Load(), interrupted.Load(), failed.Load())
			if whole.Load() == 0 || interrupted.Load() == 0 || failed.Load() == 0 {
				t.Error("some outcome never came: the test tests nothing")
			}
		})
	}
}
