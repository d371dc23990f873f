package bulk_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/producer/bulk"
	"github.com/penstock/penstock/producer/cancel"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/webhook"
	"github.com/penstock/penstock/schema/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	endpoint = "/v1/completions"
	tenant   = "acme"
)

// world is penstock.control, the blob store, the pipeline and its workers, shared
// by processes. It lives in a bubble.
type world struct {
	t       *testing.T
	blobs   *blob.Store
	minter  *task.Minter
	mu      sync.Mutex
	control []tasktopic.Read
	changed chan struct{}
	tasks   map[task.ID]*running
	flying  int // accepted and not ended
	most    int // of flying
	takes   func(prompt string) time.Duration
	refuse  func(prompt string) error // of the door
	told    []*webhook.Record         // on penstock.webhooks
	window  int
	segment int // lines of one
	maxFile int64
	watched func(accepted int) // asked with the count of tasks, now and then
}

// running is one task of the pipeline. Its answer is made when it is asked for:
// what the world holds must not be taken for what a batch holds.
type running struct {
	head   string // of the prompt
	size   int    // of the prompt, and of the answer
	ended  chan struct{}
	status task.Status // once ended
	timers [2]*time.Timer
}

// headBytes is how much of a prompt is kept.
const headBytes = 32

func (r *running) terminal(id task.ID) *terminal.Terminal {
	t := &terminal.Terminal{TaskID: id, Status: r.status, Tenant: tenant}
	if r.status == task.Succeeded {
		t.Output = &task.Output{Text: strings.ToUpper(r.head) + strings.Repeat("y", r.size-len(r.head))}
	}
	return t
}

func newWorld(t *testing.T) *world {
	t.Helper()
	minter, err := task.NewMinter(task.Secret{Key: []byte("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	c := blob.DefaultConfig()
	c.URL = (&url.URL{Scheme: "file", Path: filepath.ToSlash(filepath.Join(t.TempDir(), "blobs"))}).String()
	blobs, err := blob.New(c, blob.Params{Service: "test", Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return &world{
		t: t, blobs: blobs, minter: minter, changed: make(chan struct{}), tasks: map[task.ID]*running{}, window: 16, segment: 7, maxFile: 1 << 20,
		takes: func(string) time.Duration { return 50 * time.Millisecond },
	}
}

// inBubble runs a test in a bubble with a world of its own.
func inBubble(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t)) })
}

var (
	errKilled = errors.New("this process was killed")
	errLost   = errors.New("the answer was lost")
)

// process is one Desk's view of the world. Once killed, nothing it does has an
// effect, as after kill -9.
type process struct {
	*world
	desk   *bulk.Desk
	read   int
	polled bool
	killed bool
	stop   context.CancelFunc
	runs   sync.WaitGroup
	crash  func(op string) bool // asked before ("before x") and after ("after x") each effect
	lose   func(op string) bool // asked whether the answer to an effect is lost
	freeze string               // the op at which it is stopped, as by SIGSTOP
	asleep bool
	thaw   chan struct{}
}

// start runs a process; crash may be nil.
func (w *world) start(crash func(op string) bool) *process {
	w.t.Helper()
	p := &process{world: w, crash: crash, thaw: make(chan struct{})}
	var err error
	p.desk, err = bulk.New(bulk.Params{
		Source: p, Publisher: p, Blobs: p, Intake: p, Waiter: p, Results: p, Cancels: p, Dialect: dialect{},
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Owner: "test", MaxTaskAge: 36 * time.Hour,
		MaxFile: w.maxFile, MaxLine: 16 << 10, FileLife: 30 * 24 * time.Hour, Window: w.window, Batches: 2, SegmentLines: w.segment,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(w.t.Context())
	p.stop = stop
	p.runs.Go(func() { p.desk.Run(ctx) })
	synctest.Wait() // it has read what there is
	return p
}

// loses has the first answer to each kind of effect of the runner lost, and every
// other one of a segment's.
func (p *process) loses() {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := map[string]int{}
	p.lose = func(op string) bool {
		seen[op]++
		return strings.HasPrefix(op, "bulk.") && op != "bulk.created" && op != "bulk.file" && seen[op]%2 == 1
	}
}

// drain stops a process in good order.
func (p *process) drain() {
	p.stop()
	p.runs.Wait()
}

// hold keeps a frozen process from doing anything.
func (p *process) hold(op string) {
	p.mu.Lock()
	if op == p.freeze {
		p.asleep, p.freeze = true, ""
	}
	asleep := p.asleep
	p.mu.Unlock()
	if asleep {
		<-p.thaw
	}
}

// freezeAt stops the process when it does something next.
func (p *process) freezeAt(op string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.freeze = op
}

func (p *process) isAsleep() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asleep
}

// wake lets a frozen process go on.
func (p *process) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asleep = false
	close(p.thaw)
}

// effect runs do unless the process is dead, or dies just now.
func (p *process) effect(op string, do func() error) error {
	p.hold(op)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dies("before " + op) {
		return errKilled
	}
	err := do()
	if p.dies("after " + op) {
		return errKilled
	}
	if err == nil && p.lose != nil && p.lose(op) {
		return errLost
	}
	return err
}

func (p *process) dies(at string) bool {
	if !p.killed && p.crash != nil && p.crash(at) {
		p.killed = true
		p.stop()
	}
	return p.killed
}

func (p *process) BrokerNow() time.Time { return time.Now() }

func (p *process) Control(_ context.Context, key string, value []byte) (ack tasktopic.Ack, err error) {
	var head struct{ Type string }
	if err := json.Unmarshal(value, &head); err != nil {
		return ack, err
	}
	err = p.effect(head.Type, func() error {
		ack = tasktopic.Ack{Topic: topic.Control, Offset: int64(len(p.control))}
		p.control = append(p.control, tasktopic.Read{
			Topic: topic.Control, Offset: ack.Offset, Time: time.Now(), Record: wire.Control(key, value, time.Now()),
		})
		close(p.changed)
		p.changed = make(chan struct{})
		return nil
	})
	return ack, err
}

func (p *process) Webhook(_ context.Context, w *webhook.Record) (ack tasktopic.Ack, err error) {
	return ack, p.effect("announce", func() error {
		told := *w
		p.told = append(p.told, &told)
		return nil
	})
}

func (p *process) Poll(ctx context.Context) ([]tasktopic.Read, bool, error) {
	for {
		p.hold("poll")
		p.mu.Lock()
		entries, changed, first := slices.Clone(p.control[p.read:]), p.changed, !p.polled
		p.read, p.polled = len(p.control), true
		p.mu.Unlock()
		if len(entries) > 0 || first {
			return entries, true, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, false, context.Cause(ctx)
		}
	}
}

func (p *process) Put(ctx context.Context, r io.Reader, limit int64) (ref task.Ref, err error) {
	err = p.effect("put", func() error { ref, err = p.blobs.Put(context.WithoutCancel(ctx), r, limit); return err })
	return ref, err
}

// Keep reads while it stores, and what is read has effects of its own.
func (p *process) Keep(ctx context.Context, name string, until time.Time, r io.Reader, limit int64) (ref task.Ref, err error) {
	if err := p.effect("begin keep", func() error { return nil }); err != nil {
		return ref, err
	}
	ref, err = p.blobs.Keep(context.WithoutCancel(ctx), name, until, r, limit)
	return ref, errors.Join(err, p.effect("keep", func() error { return nil }))
}

func (p *process) Open(ctx context.Context, ref task.Ref) (content io.ReadCloser, err error) {
	err = p.effect("open", func() error { content, err = p.blobs.Open(context.WithoutCancel(ctx), ref); return err })
	return content, err
}

func (p *process) Remove(ctx context.Context, ref task.Ref) error {
	return p.effect("remove", func() error { return p.blobs.Remove(context.WithoutCancel(ctx), ref) })
}

func (p *process) Check(s ingest.Submission) error {
	if s.Request.Model != "sim" {
		return &validate.Error{Code: fault.NotFound, Path: "model", Offset: -1, Reason: "no such model"}
	}
	return nil
}

func (p *process) AcceptAll(_ context.Context, n int, item func(i int) (ingest.Submission, error)) []ingest.Result {
	out := make([]ingest.Result, n)
	for i := range n {
		s, err := item(i)
		if err == nil {
			err = p.effect("accept", func() error { out[i].Receipt.ID, err = p.accept(s); return err })
		}
		if errors.Is(err, errKilled) {
			err = &fault.Error{Code: fault.Unavailable, Err: err}
		}
		out[i].Err = err
	}
	return out
}

// accept runs a task unless it is known.
func (w *world) accept(s ingest.Submission) (task.ID, error) {
	prompt := s.Request.Payload.Text
	switch {
	case s.Request.Class != task.Bulk, s.Request.Stream, s.Request.Deadline == nil, s.Tenant != tenant:
		w.t.Errorf("submitted %+v of %s", s.Request, s.Tenant)
	case w.refuse != nil:
		if err := w.refuse(prompt); err != nil {
			return "", err
		}
	}
	id := w.minter.Keyed(s.Tenant, s.Key, sha256.Sum256(s.Body), time.Unix(0, 0))
	if _, known := w.tasks[id]; known {
		return id, nil
	}
	r := &running{head: strings.Clone(prompt[:min(len(prompt), headBytes)]), size: len(prompt), ended: make(chan struct{})}
	w.tasks[id] = r
	if w.watched != nil {
		w.watched(len(w.tasks))
	}
	w.flying++
	w.most = max(w.most, w.flying)
	status := task.Succeeded
	if strings.HasPrefix(prompt, "bad") {
		status = task.Failed
	}
	r.timers[0] = time.AfterFunc(w.takes(prompt), func() { w.end(r, status) })
	r.timers[1] = time.AfterFunc(time.Until(*s.Request.Deadline)+2*time.Second, func() { w.end(r, task.Expired) })
	return id, nil
}

// end ends a task; the first end wins.
func (w *world) end(r *running, s task.Status) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.status != "" {
		return
	}
	r.status = s
	for _, t := range r.timers {
		t.Stop()
	}
	w.flying--
	close(r.ended)
}

func (p *process) Wait(ctx context.Context, id task.ID) (*terminal.Terminal, uint8, error) {
	p.mu.Lock()
	r := p.tasks[id]
	p.mu.Unlock()
	select {
	case <-r.ended:
		return r.terminal(id), 0, nil
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
}

func (p *process) Task(_ context.Context, view api.Task) (api.Task, func(), error) {
	return view, func() {}, nil
}

func (p *process) Cancel(_ context.Context, of string, id task.ID) (cancel.Outcome, error) {
	p.mu.Lock()
	r := p.tasks[id]
	p.mu.Unlock()
	if of != tenant {
		p.t.Errorf("cancelled as %s", of)
	}
	if err := p.effect("cancel", func() error { return nil }); err != nil {
		return cancel.Outcome{}, &fault.Error{Code: fault.Unavailable, Err: err}
	}
	p.end(r, task.Cancelled)
	return cancel.Outcome{}, nil
}

// dialect is one endpoint that answers in capitals.
type dialect struct{}

func (dialect) Serves(e string) bool { return e == endpoint }

func (dialect) Request(_ string, body []byte) (ingest.Submission, bulk.AnswerFunc, error) {
	var b struct{ Model, Prompt string }
	if err := json.Unmarshal(body, &b); err != nil || b.Prompt == "" {
		return ingest.Submission{}, nil, &validate.Error{Code: fault.Malformed, Path: "prompt", Offset: -1, Reason: "is required"}
	}
	s := ingest.Submission{Request: &api.SubmitRequest{Model: b.Model, Payload: task.Payload{Text: b.Prompt}, Stream: true}, Body: body}
	return s, func(t api.Task) bulk.Answer {
		if t.Status != task.Succeeded {
			return bulk.Answer{Status: 400, Body: []byte(`{"error":"` + string(t.Status) + `"}`)}
		}
		return bulk.Answer{Status: 200, Body: []byte(`{"text":"` + t.Output.Text + `"}`)}
	}, nil
}

func (dialect) Refusal(_ string, err error) bulk.Answer {
	return bulk.Answer{Status: 422, Body: []byte(fmt.Sprintf(`{"error":%q}`, err))}
}

// jsonl is a file of n requests; some end badly.
func jsonl(n int) string {
	var b strings.Builder
	for i := range n {
		prompt := fmt.Sprintf("line %d", i)
		if i%5 == 3 {
			prompt = fmt.Sprintf("bad %d", i)
		}
		fmt.Fprintf(&b, `{"custom_id":"c-%d","method":"POST","url":"/v1/completions","body":{"model":"sim","prompt":%q}}`+"\n", i, prompt)
		if i%9 == 0 {
			b.WriteString(" \n") // empty lines are no requests
		}
	}
	return b.String()
}

// upload sends a file and returns its id.
func (p *process) upload(content string) string {
	p.t.Helper()
	u, err := p.desk.Receive(p.t.Context(), strings.NewReader(content))
	if err != nil {
		p.t.Fatal(err)
	}
	f, err := p.desk.File(p.t.Context(), tenant, u, bulk.About{Name: "in.jsonl", Purpose: bulk.PurposeBatch})
	if err != nil {
		p.t.Fatal(err)
	}
	return f.ID
}

// order makes a batch of a content and returns its id.
func (p *process) order(content, window string) string {
	p.t.Helper()
	b, err := p.desk.Create(p.t.Context(), tenant, bulk.Order{Input: p.upload(content), Endpoint: endpoint, Window: window})
	if err != nil {
		p.t.Fatal(err)
	}
	return b.ID
}

func (p *process) batch(id string) bulk.Batch {
	p.t.Helper()
	b, err := p.desk.FindBatch(p.t.Context(), tenant, id)
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}

// finish waits until a batch has ended.
func (p *process) finish(id string, within time.Duration) bulk.Batch {
	p.t.Helper()
	for until := time.Now().Add(within); time.Now().Before(until); time.Sleep(100 * time.Millisecond) {
		if b := p.batch(id); b.Status.Ended() {
			return b
		}
	}
	p.t.Fatalf("the batch is %+v after %s", p.batch(id), within)
	return bulk.Batch{}
}

// result is one line of an output or error file.
type result struct {
	ID       string `json:"id"`
	CustomID string `json:"custom_id"`
	Response *struct {
		Status    int             `json:"status_code"`
		RequestID string          `json:"request_id"`
		Body      json.RawMessage `json:"body"`
	} `json:"response"`
	Error *struct{ Code, Message string } `json:"error"`
}

// results reads a file of results; none without an id.
func (p *process) results(id string) []result {
	p.t.Helper()
	if id == "" {
		return nil
	}
	_, content, err := p.desk.Content(p.t.Context(), tenant, id)
	if err != nil {
		p.t.Fatal(err)
	}
	defer content.Close()
	var out []result
	in := bufio.NewScanner(content)
	for in.Scan() {
		var r result
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			p.t.Fatalf("%v in %s", err, in.Text())
		}
		out = append(out, r)
	}
	if in.Err() != nil {
		p.t.Fatal(in.Err())
	}
	return out
}

// expectWhole checks that every line of jsonl(n) has exactly one outcome, the one
// that is its own, and that its task ran once.
func (p *process) expectWhole(b bulk.Batch, n int) {
	p.t.Helper()
	seen := map[string]bool{}
	for file, status := range map[string]int{b.Output: 200, b.Errors: 400} {
		for _, r := range p.results(file) {
			if seen[r.CustomID] {
				p.t.Errorf("%s has two outcomes", r.CustomID)
			}
			seen[r.CustomID] = true
			var i int
			if _, err := fmt.Sscanf(r.CustomID, "c-%d", &i); err != nil {
				p.t.Fatal(err)
			}
			want := fmt.Sprintf(`{"text":"LINE %d"}`, i)
			if i%5 == 3 {
				want = `{"error":"failed"}`
			}
			if r.Response == nil || r.Response.Status != status || string(r.Response.Body) != want || r.Error != nil || r.Response.RequestID == "" {
				p.t.Errorf("%s: %+v, want %s", r.CustomID, r, want)
			}
		}
	}
	failed := n/5 + max(0, n%5-3)
	if len(seen) != n || b.Counts != (bulk.Counts{Completed: n - failed, Failed: failed}) || b.Total != n {
		p.t.Errorf("%d outcomes, %+v of %d, want %d lines, %d failed", len(seen), b.Counts, b.Total, n, failed)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.tasks) != n {
		p.t.Errorf("%d tasks ran for %d lines", len(p.tasks), n)
	}
}
