package redrive_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sort"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/projection"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
	"github.com/penstock/penstock/worker/redrive"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	partitions = 4
	adminToken = "sesame-sesame"
)

// published is one record on a tasks topic.
type published struct {
	topic    string
	record   wire.Record
	progress task.Progress
	task     *task.Task
}

// world is Kafka and the results projection in memory, shared by workers.
type world struct {
	mu      sync.Mutex
	letters map[int32][]tasktopic.Read
	control []tasktopic.Read
	ahead   time.Duration // of the brokers' clock before this machine's
	results [partitions][]*terminal.Terminal
	places  map[task.ID][]int64 // in its partition of results
	tasks   map[task.ID][]published
	order   []time.Time   // of publications
	lag     time.Duration // from a result to its projection
	since   [partitions][]time.Time
	broken  error // what the store answers, if anything
	empty   bool  // the store lost its data and is being rebuilt
	// ends says how a published task ends, takes later; nil: it does not.
	ends     func(n int, id task.ID) task.Status
	takes    time.Duration
	changed  chan struct{}
	minter   *task.Minter
	sequence int64
}

func newWorld(t *testing.T) *world {
	t.Helper()
	m, err := task.NewMinter(task.Secret{Key: []byte("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	return &world{letters: map[int32][]tasktopic.Read{}, places: map[task.ID][]int64{}, tasks: map[task.ID][]published{}, changed: make(chan struct{}), minter: m, lag: 5 * time.Millisecond}
}

func (w *world) wake() { close(w.changed); w.changed = make(chan struct{}) }

// death is a dead letter to be made; zero fields have plain values.
type death struct {
	tenant, model, code, message string
	disposition                  deadletter.Disposition
	originTopic, returnTopic     string
	generation                   uint8
	at                           time.Time
	deadline                     time.Duration // from now
	value                        []byte        // instead of a task's
	unfinished                   bool          // the `dead` terminal is missing
	ref                          *task.Ref     // of a payload in the blob store
}

// die makes a dead letter and its terminal.
func (w *world) die(t *testing.T, d death) (task.ID, redrive.Ref) {
	t.Helper()
	now := time.Now().UTC()
	tk := &task.Task{
		SchemaVersion: 1, ID: w.minter.New("dev", now), Kind: task.Completion, Source: task.SourceAPI,
		Tenant: or(d.tenant, "dev"), Model: or(d.model, "sim-chat"), Class: task.Standard,
		Payload: task.Payload{Text: "the secret prompt"}, Timestamp: now, Deadline: now.Add(or(d.deadline, 24*time.Hour)),
	}
	pr := task.Progress{
		Generation: d.generation, Hop: 3, Attempts: 5, ReturnTopic: d.returnTopic,
		History: []task.Attempt{{N: 1, StartedAt: now, Code: "timeout"}},
	}
	if d.ref != nil {
		tk.Payload = task.Payload{Ref: d.ref}
	}
	rec, err := wire.EncodeTask(tk, pr, "")
	if err != nil {
		t.Fatal(err)
	}
	if d.value != nil {
		rec.Value = d.value
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sequence++
	l := deadletter.Letter{
		TaskID: tk.ID, Tenant: tk.Tenant, Model: tk.Model, Disposition: or(d.disposition, deadletter.Exhausted),
		Code: or(fault.Code(d.code), fault.Timeout), Message: or(d.message, "timeout: no answer within 30s"), Attempts: 5, History: pr.History,
		Origin:     deadletter.Origin{Topic: or(d.originTopic, topic.Tasks("default", task.Standard)), Partition: 2, Offset: w.sequence, Timestamp: now},
		Generation: d.generation, DeadAt: or(d.at, now),
	}
	if d.disposition == deadletter.Undecodable {
		l.TaskID = ""
	}
	lettered, err := wire.EncodeDeadLetter(rec, l)
	if err != nil {
		t.Fatal(err)
	}
	ref := w.append(lettered, tk.ID)
	if !d.unfinished {
		w.result(&terminal.Terminal{SchemaVersion: 1, TaskID: tk.ID, Status: task.Dead, Tenant: tk.Tenant, EndedAt: now})
	}
	return tk.ID, ref
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

func (w *world) append(rec wire.Record, id task.ID) redrive.Ref {
	p := topic.ResultsPartition(id, 3)
	ref := redrive.Ref{Partition: p, Offset: int64(len(w.letters[p]))}
	w.letters[p] = append(w.letters[p], tasktopic.Read{Topic: topic.DeadLetters, Partition: ref.Partition, Offset: ref.Offset, Time: time.Now(), Record: rec})
	w.wake()
	return ref
}

// appendLetter writes a dead letter of a published task.
func (w *world) appendLetter(t *testing.T, of published, l deadletter.Letter) {
	t.Helper()
	tk, _, err := wire.DecodeTask(of.record)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := wire.Republish(of.record, tk, of.progress, "")
	if err != nil {
		t.Fatal(err)
	}
	if rec, err = wire.EncodeDeadLetter(rec, l); err != nil {
		t.Fatal(err)
	}
	w.append(rec, l.TaskID)
}

// repeat writes a dead letter's record a second time.
func (w *world) repeat(r redrive.Ref) redrive.Ref {
	w.mu.Lock()
	defer w.mu.Unlock()
	rec := w.letters[r.Partition][r.Offset].Record
	return w.append(rec, task.ID(rec.Key))
}

func (w *world) result(t *terminal.Terminal) tasktopic.Ack {
	p := topic.ResultsPartition(t.TaskID, partitions)
	w.results[p] = append(w.results[p], t)
	w.since[p] = append(w.since[p], time.Now())
	w.places[t.TaskID] = append(w.places[t.TaskID], int64(len(w.results[p])-1))
	return tasktopic.Ack{Topic: topic.Results, Partition: p, Offset: int64(len(w.results[p]) - 1)}
}

// end ends a task after a while; a first end wins.
func (w *world) end(id task.ID, generation uint8, s task.Status) {
	time.AfterFunc(w.takes, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.result(&terminal.Terminal{SchemaVersion: 1, TaskID: id, Status: s, Generation: &generation, Tenant: "dev", EndedAt: time.Now()})
	})
}

// next is how far a partition is projected now.
func (w *world) next(p int32) int64 {
	applied := time.Now().Add(-w.lag)
	return int64(sort.Search(len(w.since[p]), func(n int) bool { return w.since[p][n].After(applied) }))
}

func (w *world) state(id task.ID, upTo int64) (s terminal.State, reopenings int) {
	p := topic.ResultsPartition(id, partitions)
	for _, o := range w.places[id] {
		if o >= upTo {
			break
		}
		t := w.results[p][o]
		next, took := s.Apply(t, o)
		if took && t.Status == terminal.Reopened {
			reopenings++
		}
		s = next
	}
	return s, reopenings
}

// truth is the fold of everything, whatever the projection knows.
func (w *world) truth(id task.ID) (terminal.State, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state(id, int64(len(w.results[topic.ResultsPartition(id, partitions)])))
}

var errKilled = errors.New("this worker was killed")

// worker is one Redriver's view of the world. Once killed, nothing it does has
// an effect, as after kill -9.
type worker struct {
	*world
	cursors map[int32]int
	read    int
	killed  bool
	kill    context.CancelFunc
	frozen  bool                 // stopped by a signal: its effects come when it goes on
	crash   func(op string) bool // asked before ("before x") and after ("after x") each effect
}

// freeze stops the worker as SIGSTOP does, and thaw lets it go on.
func (k *worker) freeze(on bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.frozen = on
}

// effect runs do unless the worker is dead, or dies just now.
func (k *worker) effect(op string, do func() error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.frozen {
		k.mu.Unlock()
		pass(10 * time.Millisecond)
		k.mu.Lock()
	}
	if k.dies("before " + op) {
		return errKilled
	}
	err := do()
	if k.dies("after " + op) {
		return errKilled
	}
	return err
}

func (k *worker) dies(op string) bool {
	if !k.killed && k.crash != nil && k.crash(op) {
		k.killed = true
		k.kill()
	}
	return k.killed
}

func (k *worker) Poll(ctx context.Context) (redrive.Batch, error) {
	for {
		k.mu.Lock()
		for k.frozen {
			k.mu.Unlock()
			pass(10 * time.Millisecond)
			k.mu.Lock()
		}
		var b redrive.Batch
		for p, all := range k.letters {
			b.Letters = append(b.Letters, all[k.cursors[p]:]...)
			k.cursors[p] = len(all)
		}
		b.Control = append(b.Control, k.control[k.read:]...)
		k.read = len(k.control)
		changed := k.changed
		k.mu.Unlock()
		if b.CaughtUp = true; len(b.Letters)+len(b.Control) > 0 || k.cursors[-1] == 0 {
			k.cursors[-1] = 1 // answered once
			return b, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return b, ctx.Err()
		}
	}
}

func (k *worker) Fetch(_ context.Context, r redrive.Ref) (rec wire.Record, err error) {
	err = k.effect("fetch", func() error {
		if all := k.letters[r.Partition]; r.Offset < int64(len(all)) {
			rec = all[r.Offset].Record
			return nil
		}
		return redrive.ErrGone
	})
	return rec, err
}

func (k *worker) ResultsEnd(_ context.Context, p int32) (n int64, err error) {
	err = k.effect("end", func() error { n = int64(len(k.results[p])); return nil })
	return n, err
}

func (k *worker) Terminal(_ context.Context, t *terminal.Terminal) (ack tasktopic.Ack, err error) {
	err = k.effect("reopen", func() error { ack = k.result(t); return nil })
	return ack, err
}

func (k *worker) Republish(_ context.Context, rec wire.Record, t *task.Task, to string, pr task.Progress) (ack tasktopic.Ack, err error) {
	err = k.effect("publish", func() error {
		k.tasks[t.ID] = append(k.tasks[t.ID], published{to, rec, pr, t})
		k.order = append(k.order, time.Now())
		if k.ends != nil {
			k.end(t.ID, pr.Generation, k.ends(len(k.order), t.ID))
		}
		return nil
	})
	return ack, err
}

func (k *worker) BrokerNow() time.Time { return time.Now().Add(k.ahead) }

func (k *worker) Control(_ context.Context, key string, value []byte) (ack tasktopic.Ack, err error) {
	var head struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(value, &head); err != nil {
		return ack, err
	}
	err = k.effect(head.Type, func() error {
		ack = tasktopic.Ack{Topic: topic.Control, Offset: int64(len(k.control))}
		k.control = append(k.control, tasktopic.Read{Topic: topic.Control, Offset: ack.Offset, Time: time.Now(), Record: wire.Control(key, value, time.Now())})
		k.wake()
		return nil
	})
	return ack, err
}

func (k *worker) States(_ context.Context, ids []task.ID) (out []terminal.State, err error) {
	err = k.effect("states", func() error {
		for _, id := range ids {
			var s terminal.State
			if !k.empty {
				s, _ = k.state(id, k.next(topic.ResultsPartition(id, partitions)))
			}
			out = append(out, s)
		}
		return k.broken
	})
	return out, err
}

func (k *worker) Projection(_ context.Context, p int32) (out projection.Position, err error) {
	err = k.effect("projection", func() error { out = projection.Position{Next: k.next(p), Known: !k.empty}; return k.broken })
	return out, err
}

// redriver is a running worker with its admin API.
type redriver struct {
	t       *testing.T
	worker  *worker
	handler http.Handler
	metrics *prometheus.Registry
	stop    func() // as SIGTERM does; returns once Run has
}

func (w *world) start(t *testing.T, owner string, crash func(op string) bool, change ...func(*redrive.Params)) *redriver {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	k := &worker{world: w, cursors: map[int32]int{}, kill: cancel, crash: crash}
	reg := prometheus.NewRegistry()
	p := redrive.Params{
		Source: k, Publisher: k, Store: k, Log: slog.New(slog.DiscardHandler), Metrics: reg,
		ResultsPartitions: partitions, Owner: owner, Pools: []string{"default", "embed"}, Token: config.Secret(adminToken),
		RampUp:     -1,
		PoolOfFunc: func(model string) (string, bool) { return "embed", model == "sim-embed" },
	}
	for _, c := range change {
		c(&p)
	}
	r, err := redrive.New(p)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	stop := sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	d := &redriver{t, k, r.Handler(), reg, stop}
	d.ready()
	return d
}

// do sends a request with the token; into may be nil.
func (r *redriver) do(method, path, body string, into any) (int, api.Envelope) {
	r.t.Helper()
	req := httptest.NewRequest(method, path, bytes.NewReader([]byte(body)))
	req.Header.Set("Authorization", "Bearer "+adminToken)
	req.Header.Set("Penstock-Operator", "ada@desk")
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	rec := httptest.NewRecorder()
	r.handler.ServeHTTP(rec, req)
	var e api.Envelope
	if err := json.Unmarshal(rec.Body.Bytes(), &e); err != nil {
		r.t.Fatalf("%s %s answered %d with no envelope: %s", method, path, rec.Code, rec.Body)
	}
	if into != nil && rec.Code < 300 {
		if err := json.Unmarshal(e.Data, into); err != nil {
			r.t.Fatalf("%s %s: %v in %s", method, path, err, e.Data)
		}
	}
	return rec.Code, e
}

// redrive starts a job and returns it.
func (r *redriver) redrive(body string) redrive.Job {
	r.t.Helper()
	var j redrive.Job
	if code, e := r.do("POST", "/admin/v1/redrives", body, &j); code != http.StatusAccepted {
		r.t.Fatalf("redrive answered %d: %s", code, e.Message)
	}
	return j
}

func (r *redriver) job(id string) redrive.Job {
	r.t.Helper()
	var j redrive.Job
	if code, e := r.do("GET", "/admin/v1/redrives/"+id, "", &j); code != http.StatusOK {
		r.t.Fatalf("job answered %d: %s", code, e.Message)
	}
	return j
}

// until waits in the bubble's time for a job to reach a state.
func (r *redriver) until(id string, within time.Duration, states ...redrive.JobState) redrive.Job {
	r.t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		j := r.job(id)
		if slices.Contains(states, j.State) {
			return j
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			r.t.Fatalf("job is %s after %s: %s", j.State, within, fmt.Sprintf("%+v", j))
		}
	}
}

// pass lets the bubble's time go by.
func pass(d time.Duration) { <-time.After(d) }
