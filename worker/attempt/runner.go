package attempt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/worker/backend"
)

// Params are the parts a Runner works with and its limits; zero durations are
// defaults.
type Params struct {
	Store   Store
	Log     Log
	Claims  Claims // default: no blob store
	Memory  Memory // default: none, and tasks that ask for it wait
	Logger  *slog.Logger
	Metrics prometheus.Registerer
	Worker  string           // names this process in claims and history
	NowFunc func() time.Time // the brokers' present, for deadlines; nil: the local clock

	Timeout      time.Duration // of one try, default 2 min
	Idle         time.Duration // longest silence of a stream after its first piece, default 30 s
	FirstToken   time.Duration // longest wait for a stream's first piece, default Timeout
	CheckTimeout time.Duration // of the look for a terminal before dispatch, default 250 ms
	ClaimTimeout time.Duration // default 250 ms
	TokenEvery   time.Duration // longest time tokens are gathered, default 40 ms; negative: never
}

func (p Params) withDefaults() Params {
	set := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	set(&p.Timeout, 2*time.Minute)
	set(&p.Idle, 30*time.Second)
	set(&p.FirstToken, p.Timeout)
	set(&p.CheckTimeout, 250*time.Millisecond)
	set(&p.ClaimTimeout, 250*time.Millisecond)
	set(&p.TokenEvery, 40*time.Millisecond)
	p.TokenEvery = max(0, p.TokenEvery)
	if p.NowFunc == nil {
		p.NowFunc = time.Now
	}
	if p.Claims == nil {
		p.Claims = claimcheck.New(nil, claimcheck.Params{})
	}
	if p.Memory == nil {
		p.Memory = noMemory{}
	}
	return p
}

// Runner runs batches of tries. It is safe for concurrent use.
type Runner struct {
	p       Params
	streams *Streams
	holds   *holds
	alone   atomic.Bool // a suspect runs
	patient patience    // with the store
	m       *metrics
	hints   chan []*Try // holds one batch; a hint that finds it full is lost
}

// hintQueue is how many batches of hints wait; hints may be lost.
const hintQueue = 16

// NewRunner returns a runner. Run must be running for tokens to flow.
func NewRunner(p Params) *Runner {
	p = p.withDefaults()
	m := newMetrics(p.Metrics)
	return &Runner{
		p: p, streams: NewStreams(p.Log, p.TokenEvery, m), m: m, hints: make(chan []*Try, hintQueue),
		holds: newHolds(p.Log, p.ClaimTimeout, p.Logger, m),
	}
}

// Run writes tokens, hints and the beats of claims until ctx is done.
func (r *Runner) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { r.streams.Run(ctx) })
	wg.Go(func() { r.holds.run(ctx) })
	for {
		select {
		case <-ctx.Done():
			return
		case tries := <-r.hints:
			r.hint(ctx, tries)
		}
	}
}

func (r *Runner) hint(ctx context.Context, tries []*Try) {
	ctx, cancel := context.WithTimeout(ctx, r.p.ClaimTimeout)
	defer cancel()
	hints := make([]taskstore.Hint, len(tries))
	for i, t := range tries {
		hints[i] = taskstore.Hint{
			ID: t.Task.ID, Tenant: t.Task.Tenant, Status: task.Running, Generation: t.Progress.Generation, Attempt: t.N,
			Model: t.Task.Model, Class: t.Task.Class, Labels: t.Task.Labels, CreatedAt: t.Task.Timestamp,
		}
	}
	if err := r.p.Store.Hint(ctx, hints); err != nil {
		r.p.Logger.Debug("hint lost", "err", err)
	}
}

// Call is a reserved place on a backend for one batch.
type Call struct {
	Backend backend.Backend
	Name    string
	// Open reports whether the backend still takes calls. A batch that failed
	// as a whole is only split and run again while it does. Nil: always.
	Open func() bool
}

// Do runs tries in one call, or in several if it fails as a whole and has to be
// bisected until the culprit is alone. It returns one result per try, in order.
// Ctx ends only what is left when the worker has no more time.
func (r *Runner) Do(ctx context.Context, c Call, tries []*Try) []Result {
	results := make([]Result, len(tries))
	live := r.check(ctx, tries, results)
	live, release := r.collect(ctx, tries, live, results)
	defer release()
	if len(live) == 0 {
		return results
	}
	grants := r.claim(ctx, tries, live)
	live, claimed := r.sift(tries, live, grants, results)
	if len(live) == 0 {
		return results
	}
	r.announce(tries, live)
	done := r.holds.hold(tries, live)
	r.run(ctx, c, tries, live, claimed, results)
	done(results)
	return results
}

// check asks the store, once for all, which tasks have ended meanwhile: those
// are moot. A store that is slow or away stops nobody.
func (r *Runner) check(ctx context.Context, tries []*Try, results []Result) (live []int) {
	ids := make([]task.ID, len(tries))
	for i, t := range tries {
		ids[i] = t.Task.ID
	}
	states, err := r.states(ctx, ids)
	if err != nil || len(states) != len(tries) {
		r.m.checks.WithLabelValues("skipped").Inc()
		r.p.Logger.Debug("no look at the store before dispatch", "err", err)
	}
	for i, t := range tries {
		if err == nil && len(states) == len(tries) {
			s := states[i]
			if s.Generation > t.Progress.Generation || s.Generation == t.Progress.Generation && !s.Open() {
				results[i].Moot = true
				r.m.checks.WithLabelValues("moot").Inc()
				continue
			}
		}
		live = append(live, i)
	}
	if len(live) == len(tries) && err == nil {
		r.m.checks.WithLabelValues("ok").Inc()
	}
	return live
}

// states asks the store, if that is worth the wait now.
func (r *Runner) states(ctx context.Context, ids []task.ID) ([]terminal.State, error) {
	if !r.patient.ask() {
		return nil, errAway
	}
	ctx, cancel := context.WithTimeout(ctx, r.p.CheckTimeout)
	defer cancel()
	states, err := r.p.Store.States(ctx, ids)
	r.patient.heard(err)
	return states, err
}

// claim tells the store who runs the tasks, and opens their token streams.
func (r *Runner) claim(ctx context.Context, tries []*Try, live []int) []eventlog.Grant {
	claims := make([]eventlog.Claim, len(live))
	for j, i := range live {
		claims[j] = r.claimOf(tries[i])
	}
	if !r.patient.ask() {
		grants := make([]eventlog.Grant, len(claims))
		for i, c := range claims {
			grants[i] = eventlog.Grant{Losses: c.Losses, Err: errAway}
		}
		return grants
	}
	ctx, cancel := context.WithTimeout(ctx, r.p.ClaimTimeout)
	defer cancel()
	grants := r.p.Log.ClaimAll(ctx, claims)
	r.patient.heard(faultOf(grants))
	return grants
}

// sift leaves those to run that the store says nothing against, and tells which
// of them have a token stream. A store that is away, or refuses a fence, stops
// nobody: groups can be renamed and generations restart, and the terminals
// decide.
func (r *Runner) sift(tries []*Try, live []int, grants []eventlog.Grant, results []Result) (run []int, claimed []bool) {
	claimed = make([]bool, len(tries))
	for j, i := range live {
		g := grants[j]
		r.m.claims.WithLabelValues(outcomeOf(g.Err)).Inc()
		results[i].Losses, results[i].Lost = g.Losses, g.Lost
		if g.Lost != nil {
			r.m.lost.Inc()
		}
		switch {
		case errors.Is(g.Err, eventlog.ErrHeld):
			results[i].Held = true
		case errors.Is(g.Err, eventlog.ErrBarred):
			results[i].Barred = true
		default:
			claimed[i] = g.Err == nil
			run = append(run, i)
		}
	}
	return run, claimed
}

// outcomeOf is the label of a claim's answer.
func outcomeOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, eventlog.ErrFenced):
		return "fenced"
	case errors.Is(err, eventlog.ErrHeld):
		return "held"
	case errors.Is(err, eventlog.ErrBarred):
		return "barred"
	default:
		return "error"
	}
}

func (r *Runner) claimOf(t *Try) eventlog.Claim {
	return eventlog.Claim{
		ID: t.Task.ID, Fence: t.Fence, Attempt: t.N, Worker: r.p.Worker, Event: t.opening(time.Now().UTC()),
		Losses: t.Progress.Losses, Insist: t.Insist,
	}
}

// Seclude asks for the one place where this worker runs a task that may be what
// kills it: one at a time, so that the next loss says which one it was. Whoever
// gets true calls Readmit when the task has an outcome.
func (r *Runner) Seclude() bool { return r.alone.CompareAndSwap(false, true) }

// Readmit gives Seclude's place back.
func (r *Runner) Readmit() { r.alone.Store(false) }

func (r *Runner) announce(tries []*Try, live []int) {
	out := make([]*Try, len(live))
	for j, i := range live {
		out[j] = tries[i]
	}
	select {
	case r.hints <- out:
	default: // a hint may be lost
	}
}

// run executes the live tries. Those that may have failed only because of their
// neighbours run again: in halves, or, if the others came to an end of their own,
// without them.
func (r *Runner) run(ctx context.Context, c Call, tries []*Try, live []int, claimed []bool, results []Result) {
	r.call(ctx, c, tries, live, claimed, results)
	again := spoiled(live, results)
	if len(again) == 0 {
		return
	}
	r.m.bisects.Inc()
	parts := [][]int{again}
	if len(again) == len(live) {
		half := len(live) / 2
		parts = [][]int{live[:half], live[half:]}
	}
	for _, part := range parts {
		if ctx.Err() != nil || c.Open != nil && !c.Open() {
			r.giveBack(part, results)
			continue
		}
		r.run(ctx, c, tries, part, claimed, results)
		for _, i := range part {
			results[i].Suspect = results[i].Suspect || fault.ClassOf(results[i].Err) == fault.ClassSystem && results[i].Err != nil
		}
	}
}

// spoiled returns the tries of a call that may have failed because of a neighbour:
// with a fault of the tasks, where nobody succeeded. Who was cancelled or
// interrupted in that moment has that for his result, and may yet be the culprit.
func spoiled(live []int, results []Result) (again []int) {
	if len(live) < 2 {
		return nil
	}
	for _, i := range live {
		err := results[i].Err
		if err == nil {
			return nil
		}
		own := fault.RuleOf(fault.CodeOf(err)).Next == fault.NextEnd
		if class := fault.ClassOf(err); !own && class != fault.ClassSystem && class != fault.ClassNone {
			again = append(again, i)
		}
	}
	return again
}

// giveBack leaves tries for another time: their neighbours' failure, and a
// backend that takes no more calls, cost them nothing.
func (r *Runner) giveBack(part []int, results []Result) {
	for _, i := range part {
		results[i].Suspect = true
		results[i].Err = &fault.Error{
			Code: fault.Unavailable, Class: fault.ClassSystem,
			Message: "the backend stopped taking calls", Backend: results[i].Backend, Err: results[i].Err,
		}
	}
}

// call makes one call of the backend.
func (r *Runner) call(ctx context.Context, c Call, tries []*Try, live []int, claimed []bool, results []Result) {
	started := time.Now()
	items := make([]backend.Item, len(live))
	streams := make([]*Stream, len(live))
	ctxs := make([]context.Context, len(live))
	for j, i := range live {
		t := tries[i]
		itemCtx, stop := t.start(ctx, r.p.Timeout, r.p.NowFunc())
		defer stop()
		ctxs[j] = itemCtx
		items[j] = backend.Item{Task: t.input(), Fence: t.Fence, Ctx: itemCtx}
		if t.Task.Stream {
			items[j].Emit, streams[j], stop = r.emitter(t, claimed[i])
			defer stop()
		}
		r.p.Logger.Debug("attempt starts", "task_id", t.Task.ID, "fence", t.Fence.String(), "attempt", t.N, "backend", c.Name)
	}
	outcomes := safely(ctx, c, items)
	took := time.Since(started)
	awaitTails(streams)
	for j, i := range live {
		res := &results[i]
		res.Output, res.Usage, res.Err = outcomes[j].Output, outcomes[j].Usage, settleErr(ctxs[j], outcomes[j].Err)
		res.Backend, res.Started, res.Ended = c.Name, started, started.Add(took)
		if d := outcomes[j].FirstToken; d > 0 {
			r.m.firstToken.Observe(d.Seconds())
		}
	}
}

// tailLimit is how long an attempt waits for the last of its tokens to be
// written. A store that is slower than this costs a stream its tail; the
// terminal has the full text.
const tailLimit = 250 * time.Millisecond

// awaitTails closes streams and waits until they are written: the terminal,
// which goes another way, must not overtake the last tokens.
func awaitTails(streams []*Stream) {
	limit := time.NewTimer(tailLimit)
	defer limit.Stop()
	for _, st := range streams {
		if st != nil {
			st.Close()
		}
	}
	for _, st := range streams {
		if st == nil {
			continue
		}
		select {
		case <-st.Written():
		case <-limit.C:
			return
		}
	}
}

// emitter passes a stream's pieces on and ends the try when they stop coming.
// Without a claim there is no stream, but silence still counts.
func (r *Runner) emitter(t *Try, claimed bool) (emit func(backend.Piece), st *Stream, stop func()) {
	if claimed {
		st = r.streams.Open(r.claimOf(t), t.Owned)
	}
	silence := time.AfterFunc(r.p.FirstToken, func() {
		t.Cancel(fault.New(fault.Timeout, "no token came in time"))
	})
	emit = func(p backend.Piece) {
		silence.Reset(r.p.Idle)
		if st != nil {
			st.Emit(p)
		}
	}
	return emit, st, func() { silence.Stop() }
}

// settleErr says why a try failed: what ended its context, if anything did,
// for what the backend made of that is only an echo.
func settleErr(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	cause := context.Cause(ctx)
	if _, ours := errors.AsType[*fault.Error](cause); ours {
		return cause
	}
	return err
}

// safely keeps a backend's panic, or an answer of the wrong size, within the
// call.
func safely(ctx context.Context, c Call, items []backend.Item) (out []backend.Outcome) {
	defer func() {
		if v := recover(); v != nil {
			out = backend.Fail(len(items), &fault.Error{
				Code: fault.Internal, Backend: c.Name,
				Message: "the backend's adapter crashed", Err: fmt.Errorf("panic: %v", v),
			})
		}
	}()
	out = c.Backend.Run(ctx, items)
	if len(out) != len(items) {
		return backend.Fail(len(items), &fault.Error{
			Code: fault.Internal, Backend: c.Name,
			Message: fmt.Sprintf("the backend's adapter returned %d outcomes for %d tasks", len(out), len(items)),
		})
	}
	for i, o := range out {
		if o.Err == nil && o.Output == nil {
			out[i].Err = &fault.Error{Code: fault.Internal, Backend: c.Name, Message: "the backend's adapter returned no output"}
		}
	}
	return out
}

// Judge decides what follows from a result and counts it.
func (r *Runner) Judge(t *Try, res Result) Verdict {
	v := Decide(t.N, res.Err)
	r.m.ended(v, res)
	return v
}
