package ingest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/penstock/penstock/internal/catalog"
	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/producer/rules"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// topics is a Publisher that keeps what it is given.
type topics struct {
	mu    sync.Mutex
	tasks []*task.Task
	pools []string
	err   error
	gate  chan struct{} // closed when acknowledgements may come; nil: at once
	mute  bool          // never answer an asynchronous produce
	ahead time.Duration // of the brokers' clock to ours

	written []string        // steps and tasks by id, in the order of their acknowledgement
	hookErr error           // of every webhook
	noHooks bool            // never answer a webhook
	slow    []time.Duration // by which the acknowledgements of webhooks come later, in turn
}

func (p *topics) WebhookAsync(w *webhook.Record, done func(tasktopic.Ack, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.noHooks {
		return
	}
	acknowledge := func() {
		p.mu.Lock()
		if p.hookErr == nil {
			p.written = append(p.written, string(w.Step)+" "+string(w.TaskID))
		}
		p.mu.Unlock()
		done(tasktopic.Ack{}, p.hookErr)
	}
	wait := time.Duration(0)
	if len(p.slow) > 0 {
		wait, p.slow = p.slow[0], p.slow[1:]
	}
	time.AfterFunc(wait, acknowledge)
}

func (p *topics) BrokerNow() time.Time { return time.Now().Add(p.ahead) }

func (p *topics) Task(_ context.Context, t *task.Task, pool string, _ task.Progress) (tasktopic.Ack, error) {
	if p.gate != nil {
		<-p.gate
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return tasktopic.Ack{}, p.err
	}
	p.tasks, p.pools = append(p.tasks, t), append(p.pools, pool)
	p.written = append(p.written, "task "+string(t.ID))
	return tasktopic.Ack{}, nil
}

func (p *topics) TaskAsync(ctx context.Context, t *task.Task, pool string, pr task.Progress, done func(tasktopic.Ack, error)) {
	if p.mute {
		return
	}
	done(p.Task(ctx, t, pool, pr))
}

func (p *topics) ids() []task.ID {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []task.ID
	for _, t := range p.tasks {
		out = append(out, t.ID)
	}
	return out
}

// memory is a Memory that can be down.
type memory struct {
	mu     sync.Mutex
	prints map[string][2]string // tenant and key → hash, id
	known  map[task.ID]bool
	asked  int
	down   bool
}

var errDown = errors.New("connection refused")

func (m *memory) answer() error {
	m.asked++
	if m.down {
		return errDown
	}
	return nil
}

func (m *memory) Fingerprint(_ context.Context, tenant, key, hash string, id task.ID) (string, task.ID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.answer(); err != nil {
		return "", "", err
	}
	if first, ok := m.prints[tenant+" "+key]; ok {
		return first[0], task.ID(first[1]), nil
	}
	m.prints[tenant+" "+key] = [2]string{hash, string(id)}
	return "", "", nil
}

func (m *memory) Known(_ context.Context, ids []task.ID) ([]bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]bool, len(ids))
	for i, id := range ids {
		out[i] = m.known[id]
	}
	return out, m.answer()
}

func (m *memory) Queued(_ context.Context, hints []ingest.Hint) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.answer(); err != nil {
		return err
	}
	for _, h := range hints {
		m.known[h.ID] = true
	}
	return nil
}

type backlog struct{ over bool }

func (b backlog) Over() bool { return b.over }

const maxAge = 36 * time.Hour

type bundle struct {
	intake *ingest.Intake
	topics *topics
	memory *memory
	hints  *ingest.Hints
	reg    *prometheus.Registry
	minter *task.Minter
}

type option func(*ingest.Deps, *ingest.Params)

func setup(t *testing.T, opts ...option) bundle {
	t.Helper()
	minter, err := task.NewMinter(task.Secret{Number: 1, Key: []byte("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	models := &catalog.Catalog{Models: []catalog.Model{
		{ID: "chat", Pool: "default", Kinds: []task.Kind{task.Chat, task.Completion}},
		{ID: "only-chat", Pool: "default", Kinds: []task.Kind{task.Chat}},
		{ID: "embed", Pool: "embed", Kinds: []task.Kind{task.Embedding}},
	}}
	b := bundle{topics: &topics{}, memory: &memory{prints: map[string][2]string{}, known: map[task.ID]bool{}}, reg: prometheus.NewRegistry(), minter: minter}
	known := func(id string) bool { _, ok := models.Model(id); return ok }
	router, err := rules.Compile(rules.Config{Rules: []rules.Rule{
		{Name: "embed", When: `text_lower.contains("vector")`, Model: "embed"},
		{Name: "web", When: `source == "web"`, Model: "chat"},
	}}, known, b.reg)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	metrics := ingest.NewMetrics(b.reg)
	b.hints = ingest.NewHints(b.memory, metrics, log)
	d := ingest.Deps{
		Minter: minter, Catalog: models, Router: router, Admission: admit.New(admit.Params{}, b.reg), Backlog: backlog{},
		Publisher: b.topics, Memory: b.memory, Hints: b.hints, Metrics: metrics, Log: log,
		Claims: claimcheck.New(nil, claimcheck.Params{}),
	}
	p := ingest.Params{MaxAge: maxAge, Exempt: "dev"}
	for _, o := range opts {
		o(&d, &p)
	}
	b.intake = ingest.New(d, p)
	return b
}

func text(model, s string) *api.SubmitRequest {
	return &api.SubmitRequest{Model: model, Payload: task.Payload{Text: s}}
}

func submission(r *api.SubmitRequest, key string) ingest.Submission {
	body, err := json.Marshal(r)
	if err != nil {
		panic(err) // the requests of these tests always encode
	}
	return ingest.Submission{Tenant: "acme", Request: r, Key: key, Body: body}
}

func TestAcceptWritesTheTaskWithItsDefaults(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		got, err := b.intake.Accept(t.Context(), submission(text("chat", "hello"), ""))
		if err != nil || got.Repeat || b.minter.Check(got.ID, "acme") != nil {
			t.Fatalf("got %+v, %v", got, err)
		}
		now := time.Now().UTC()
		want := &task.Task{
			SchemaVersion: 1, ID: got.ID, Kind: task.Completion, Source: task.SourceAPI, Tenant: "acme", Model: "chat",
			Class: task.Standard, Payload: task.Payload{Text: "hello"}, Timestamp: now, Deadline: now.Add(24 * time.Hour),
		}
		if diff := cmp.Diff(want, b.topics.tasks[0]); diff != "" || b.topics.pools[0] != "default" {
			t.Error(diff, b.topics.pools)
		}
		if b.memory.asked != 0 {
			t.Errorf("a plain submit asked Redis %d times", b.memory.asked)
		}
	})
}

func TestAcceptCarriesWhatTheCallerSet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		deadline := time.Now().Add(time.Minute).UTC()
		r := &api.SubmitRequest{
			Model: "only-chat", Payload: task.Payload{Messages: json.RawMessage(`[{"role":"user","content":"x"}]`)},
			Params: task.Params{"max_tokens": json.RawMessage("3")}, Stream: true, Source: task.SourceIOT, SessionID: "s",
			OrderingKey: "o", Class: task.Interactive, Deadline: &deadline, Labels: map[string]string{"a": "b"},
		}
		if _, err := b.intake.Accept(t.Context(), submission(r, "")); err != nil {
			t.Fatal(err)
		}
		got := b.topics.tasks[0]
		want := &task.Task{
			SchemaVersion: 1, ID: got.ID, Kind: task.Chat, Source: task.SourceIOT, Tenant: "acme", Model: "only-chat", Class: task.Interactive,
			SessionID: "s", OrderingKey: "o", Payload: r.Payload, Params: r.Params, Stream: true,
			Timestamp: time.Now().UTC(), Deadline: deadline, Labels: r.Labels,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		r.Deadline = nil
		if _, err := b.intake.Accept(t.Context(), submission(r, "")); err != nil {
			t.Fatal(err)
		}
		if left := time.Until(b.topics.tasks[1].Deadline); left != 10*time.Minute {
			t.Errorf("an interactive task lives %s by default, want 10m", left)
		}
		r.Timeout = "90s"
		if _, err := b.intake.Accept(t.Context(), submission(r, "")); err != nil {
			t.Fatal(err)
		}
		if left := time.Until(b.topics.tasks[2].Deadline); left != 90*time.Second {
			t.Errorf("a timeout of 90s gives %s", left)
		}
	})
}

func TestDeadlinesAreSetByTheBrokersClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		b.topics.ahead = 10 * time.Minute
		r := text("chat", "hello")
		past := time.Now().Add(5 * time.Minute).UTC() // by our clock it is to come
		r.Deadline = &past
		if _, err := b.intake.Accept(t.Context(), submission(r, "")); err == nil || !strings.Contains(err.Error(), "in the past") {
			t.Errorf("a deadline that has passed for the brokers: %v", err)
		}
		r.Deadline, r.Timeout = nil, "90s"
		receipt, err := b.intake.Accept(t.Context(), submission(r, ""))
		if err != nil {
			t.Fatal(err)
		}
		got := b.topics.tasks[0]
		if ahead := time.Until(got.Timestamp); ahead != 10*time.Minute || got.Deadline.Sub(got.Timestamp) != 90*time.Second {
			t.Errorf("accepted %s from now, to end %s later", ahead, got.Deadline.Sub(got.Timestamp))
		}
		if made := receipt.ID.Time().Sub(got.Timestamp).Abs(); made > time.Millisecond {
			t.Errorf("the id's time is %s off the task's", made)
		}
	})
}

func TestKindComesFromPayloadAndModel(t *testing.T) {
	t.Parallel()
	inputs := task.Payload{Inputs: []json.RawMessage{json.RawMessage(`"a"`)}}
	messages := task.Payload{Messages: json.RawMessage(`[{"role":"user"}]`)}
	for _, tc := range []struct {
		name    string
		model   string
		payload task.Payload
		want    task.Kind
		err     string
	}{
		{"text to a completing model", "chat", task.Payload{Text: "a"}, task.Completion, ""},
		{"text to an embedding model", "embed", task.Payload{Text: "a"}, task.Embedding, ""},
		{"inputs to an embedding model", "embed", inputs, task.Embedding, ""},
		{"inputs to a completing model", "chat", inputs, task.Completion, ""},
		{"messages to a chat model", "only-chat", messages, task.Chat, ""},
		{"text to a chat-only model", "only-chat", task.Payload{Text: "a"}, "", "payload.text: model only-chat does chat only"},
		{"messages to an embedding model", "embed", messages, "", "payload.messages: model embed does embedding only"},
		{"inputs to a chat-only model", "only-chat", inputs, "", "payload.inputs: model only-chat does chat only"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			_, err := b.intake.Accept(t.Context(), submission(&api.SubmitRequest{Model: tc.model, Payload: tc.payload}, ""))
			switch {
			case tc.err != "":
				if err == nil || err.Error() != tc.err || ingest.CodeOf(err) != fault.Malformed {
					t.Errorf("got %v", err)
				}
			case err != nil || b.topics.tasks[0].Kind != tc.want:
				t.Errorf("got %v, %v", b.topics.tasks, err)
			}
		})
	}
}

func TestATaskWithoutAModelIsRouted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := text("", "make a VECTOR of this")
	if _, err := b.intake.Accept(t.Context(), submission(r, "")); err != nil || b.topics.tasks[0].Model != "embed" || b.topics.pools[0] != "embed" {
		t.Errorf("%v %v", b.topics.pools, err)
	}
	_, err := b.intake.Accept(t.Context(), submission(text("", "nothing fits"), ""))
	if err == nil || err.Error() != "model: is required: no routing rule matches this message" {
		t.Error(err)
	}
}

func TestAcceptRefusesWhatJSONSchemaCannotSee(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", 200)
	with := func(change func(*api.SubmitRequest)) *api.SubmitRequest {
		r := text("chat", "a")
		change(r)
		return r
	}
	at := func(d time.Duration) *time.Time { v := time.Now().Add(d); return &v }
	labels := func(n int, value string) map[string]string {
		out := map[string]string{}
		for i := range n {
			out[fmt.Sprint(i)] = value
		}
		return out
	}
	for _, tc := range []struct {
		name string
		r    *api.SubmitRequest
		code fault.Code
		want string
	}{
		{"an unknown model", text("gpt-9", "a"), fault.NotFound, "model: no such model among the 3 known; see GET /v1/models"},
		{"a webhook inside", with(func(r *api.SubmitRequest) { r.Webhook = &task.Webhook{URL: "https://127.0.0.1/"} }), fault.Malformed, "webhook.url: cannot be called: 127.0.0.1 is no public address"},
		{"a webhook without encryption", with(func(r *api.SubmitRequest) { r.Webhook = &task.Webhook{URL: "http://example.com/"} }), fault.Malformed, "webhook.url: cannot be called: it must begin with https://"},
		{"an event that there is not", with(func(r *api.SubmitRequest) {
			r.Webhook = &task.Webhook{URL: "https://example.com/", Events: []string{"succeeded"}}
		}), fault.Malformed, "webhook.events: takes task.succeeded, task.failed, task.cancelled, task.expired, task.dead, each once"},
		{"an event twice", with(func(r *api.SubmitRequest) {
			r.Webhook = &task.Webhook{URL: "https://example.com/", Events: []string{"task.dead", "task.dead"}}
		}), fault.Malformed, "webhook.events: takes task.succeeded, task.failed, task.cancelled, task.expired, task.dead, each once"},
		{"a reference into the blob store", with(func(r *api.SubmitRequest) { r.Payload = task.Payload{Ref: &task.Ref{Key: "other tenant's"}} }), fault.Malformed, "payload.ref: is set by the server only"},
		{"deadline and timeout", with(func(r *api.SubmitRequest) { r.Deadline, r.Timeout = at(time.Hour), "1h" }), fault.Malformed, "timeout: give deadline or timeout, not both"},
		{"a deadline in the past", with(func(r *api.SubmitRequest) { r.Deadline = at(-time.Second) }), fault.Malformed, "deadline: is in the past"},
		{"a deadline too far away", with(func(r *api.SubmitRequest) { r.Deadline = at(37 * time.Hour) }), fault.Malformed, "deadline: is more than 36h0m0s away, which is the longest a task may live"},
		{"a timeout too long", with(func(r *api.SubmitRequest) { r.Timeout = "37h" }), fault.Malformed, "timeout: is more than 36h0m0s away, which is the longest a task may live"},
		{"a timeout that is none", with(func(r *api.SubmitRequest) { r.Timeout = "soon" }), fault.Malformed, `timeout: expected a duration above zero such as "30s"`},
		{"a timeout of zero", with(func(r *api.SubmitRequest) { r.Timeout = "0s" }), fault.Malformed, `timeout: expected a duration above zero such as "30s"`},
		{"a model name over the bytes", text(long, "a"), fault.TooLarge, "model: has 400 bytes, at most 256 are allowed"},
		{"a session over the bytes", with(func(r *api.SubmitRequest) { r.SessionID = long }), fault.TooLarge, "session_id: has 400 bytes, at most 256 are allowed"},
		{"an ordering key over the bytes", with(func(r *api.SubmitRequest) { r.OrderingKey = long }), fault.TooLarge, "ordering_key: has 400 bytes, at most 256 are allowed"},
		{"a label over the bytes", with(func(r *api.SubmitRequest) { r.Labels = labels(1, long) }), fault.TooLarge, "labels: a name or value is longer than 256 bytes"},
		{"a label too many", with(func(r *api.SubmitRequest) { r.Labels = labels(17, "a") }), fault.TooLarge, "labels: has 17 members, at most 16 are allowed"},
		{"an input too many", with(func(r *api.SubmitRequest) {
			r.Payload = task.Payload{Inputs: make([]json.RawMessage, 2049)}
			for i := range r.Payload.Inputs {
				r.Payload.Inputs[i] = json.RawMessage(`"a"`)
			}
		}), fault.TooLarge, "payload.inputs: has 2049 items, at most 2048 are allowed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			_, err := b.intake.Accept(t.Context(), submission(tc.r, "key"))
			if err == nil || err.Error() != tc.want || ingest.CodeOf(err) != tc.code {
				t.Errorf("got %s %v", ingest.CodeOf(err), err)
			}
			if len(b.topics.tasks) != 0 || b.memory.asked != 0 {
				t.Error("a refused task was written, or asked Redis")
			}
			want := fmt.Sprintf("# HELP penstock_producer_tasks_total Submitted tasks by outcome: accepted, repeated, or the fault code they were refused with.\n"+
				"# TYPE penstock_producer_tasks_total counter\npenstock_producer_tasks_total{outcome=%q} 1\n", tc.code)
			if err := testutil.GatherAndCompare(nonZero{b.reg}, strings.NewReader(want), "penstock_producer_tasks_total"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAFailedProduceIsNeverAccepted(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		err   error
		code  fault.Code
		retry time.Duration
		says  string
	}{
		{tasktopic.ErrFull, fault.Unavailable, time.Second, "nothing was accepted"},
		{tasktopic.ErrUnknown, fault.Unavailable, 2 * time.Second, "same Idempotency-Key"},
		{tasktopic.ErrTooLarge, fault.TooLarge, 0, "smaller payload"},
		{errors.New("codec broke"), fault.Internal, 0, "nothing was accepted"},
	} {
		t.Run(tc.err.Error(), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.topics.err = fmt.Errorf("produce: %w", tc.err)
			got, err := b.intake.Accept(t.Context(), submission(text("chat", "a"), "key"))
			f, ok := errors.AsType[*fault.Error](err)
			if !ok || got.ID != "" || f.Code != tc.code || f.RetryAfter != tc.retry || !strings.Contains(f.Message, tc.says) {
				t.Errorf("got %+v, %v", got, err)
			}
			b.topics.err = nil
			again, err := b.intake.Accept(t.Context(), submission(text("chat", "a"), "key"))
			if err != nil || again.Repeat || len(b.topics.tasks) != 1 {
				t.Errorf("the repeat after the failure was not published: %+v, %v", again, err)
			}
		})
	}
}

func TestBacklogAndRateKeepTasksOut(t *testing.T) {
	t.Parallel()
	b := setup(t, func(d *ingest.Deps, _ *ingest.Params) { d.Backlog = backlog{over: true} })
	_, err := b.intake.Accept(t.Context(), submission(text("chat", "a"), ""))
	if fault.CodeOf(err) != fault.Unavailable || fault.RetryAfterOf(err) <= 0 {
		t.Errorf("got %v with an old backlog", err)
	}
	dev := submission(text("chat", "a"), "")
	dev.Tenant = "dev"
	if _, err := b.intake.Accept(t.Context(), dev); err != nil {
		t.Errorf("the exempt tenant was refused: %v", err)
	}
	limited := setup(t, func(d *ingest.Deps, _ *ingest.Params) {
		d.Admission = admit.New(admit.Params{TasksPerSecond: 1, Burst: 1}, prometheus.NewRegistry())
	})
	_, first := limited.intake.Accept(t.Context(), submission(text("chat", "a"), ""))
	_, second := limited.intake.Accept(t.Context(), submission(text("chat", "a"), ""))
	if first != nil || fault.CodeOf(second) != fault.Throttled {
		t.Errorf("got %v, then %v", first, second)
	}
}

// nonZero hides counters that are zero.
type nonZero struct{ prometheus.Gatherer }
