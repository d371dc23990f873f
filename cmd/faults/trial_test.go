//go:build faults || chaos || soak

package faults_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/cmd/faults/ledger"
	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/schema/event"
)

// memoryLimit is what any service may have resident (I8), in bytes.
const memoryLimit = 512 << 20

// trial is a load on a rig that others wrong meanwhile, with everybody who
// watches: streams, polls, commits.
type trial struct {
	name    string
	r       *rig
	book    *ledger.Book
	watcher *ledger.Watcher
	poller  *ledger.Poller
	commits *ledger.Commits
	base    map[int]ledger.Usage
	began   time.Time

	load   sync.WaitGroup
	others sync.WaitGroup
	quiet  context.CancelFunc // ends the others
	sent   chan struct{}      // closed once all of the load is sent
	err    error              // of the load; read after it

	mu     sync.Mutex
	events []seenEvent // of all streams
}

// seenEvent is an event as a stream showed it.
type seenEvent struct {
	at time.Time
	event.Event
}

// outcome is what a trial showed.
type outcome struct {
	ledger.Verdict
	Log     *ledger.Log
	Drained time.Duration // from the last heal until all was shown ended
	InTime  bool
}

// try starts a load at a rate. The first tasks warm the system up, so that the
// baseline knows the connections that every load opens.
func (r *rig) try(t *testing.T, l ledger.Load, rate float64) *trial {
	t.Helper()
	l.Tenants = r.tenants()
	tr := r.watch(t, l)
	tr.warmUp(t, l)
	tr.start(t, l, rate)
	return tr
}

// tenants are those with a key, or everybody.
func (r *rig) tenants() []string {
	if len(r.Doors.Keys) == 0 {
		return []string{ledger.DevTenant}
	}
	return slices.Sorted(maps.Keys(r.Doors.Keys))
}

// beside starts a further load beside one that runs: it has no baseline of its
// own.
func (r *rig) beside(t *testing.T, l ledger.Load, rate float64) *trial {
	t.Helper()
	l.Tenants = r.tenants()
	tr := r.watch(t, l)
	tr.start(t, l, rate)
	return tr
}

func (r *rig) watch(t *testing.T, l ledger.Load) *trial {
	t.Helper()
	tr := &trial{name: l.Name, r: r, book: ledger.NewBook(), base: map[int]ledger.Usage{}, sent: make(chan struct{})}
	tr.watcher = ledger.NewWatcher(t.Context(), r.Doors, tr.book)
	if r.keepEvents {
		tr.watcher.OnEvent = tr.saw
	}
	t.Cleanup(tr.watcher.Close)
	tr.poller = &ledger.Poller{Doors: r.Doors, Book: tr.book, Every: 20 * time.Millisecond, Seed: l.Seed}
	var err error
	tr.commits, err = ledger.NewCommits(r.Kafka.Addrs, "default")
	must(t, err)
	t.Cleanup(tr.commits.Close)
	return tr
}

func (tr *trial) start(t *testing.T, l ledger.Load, rate float64) {
	t.Helper()
	ctx, quiet := context.WithCancel(t.Context())
	t.Cleanup(quiet)
	tr.quiet, tr.began = quiet, time.Now()
	driver := tr.driver(rate)
	tr.load.Go(func() { tr.err = driver.Run(ctx, l); close(tr.sent) })
	tr.others.Go(func() { tr.commits.Run(ctx, 500*time.Millisecond) })
	tr.others.Go(func() { _ = tr.poller.Run(ctx) }) // it fails only before its first poll, as Drain would
}

func (tr *trial) saw(_ ledger.Entry, e event.Event) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.events = append(tr.events, seenEvent{time.Now(), e})
}

func (tr *trial) driver(rate float64) *ledger.Driver {
	return &ledger.Driver{
		Doors: tr.r.Doors, Book: tr.book, Clients: 64, Rate: rate, Again: 0.05, Patience: 5 * time.Minute,
		OnAccept: func(e ledger.Entry) {
			if e.Request.Stream {
				tr.watcher.Watch(e)
			}
		},
	}
}

// warmUp runs some tasks to their end, as many at once as it can, so that every
// pool of connections is as large as it gets, and measures what is left.
func (tr *trial) warmUp(t *testing.T, l ledger.Load) {
	t.Helper()
	l.Name, l.Tasks, l.Streamed, l.Marked = l.Name+"-warm", 400, 0.5, 0
	if tr.r.warmed { // the pools are, except those of who was started anew since
		l.Tasks = 150
	}
	tr.r.warmed = true
	must(t, tr.driver(0).Run(t.Context(), l))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	open, err := tr.poller.Drain(ctx)
	if err != nil || open > 0 {
		t.Fatalf("%d of the first tasks have not ended: %v", open, err)
	}
	for _, p := range tr.r.parts() {
		tr.base[p.PID], err = ledger.Measure(t.Context(), p)
		must(t, err)
		tr.dump(t, p, l.Name)
	}
}

// dump keeps the goroutines of a part beside its log, for whoever looks into a
// leak.
func (tr *trial) dump(t *testing.T, p ledger.Part, when string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Admin+"/debug/pprof/goroutine?debug=1", nil)
	must(t, err)
	res, err := http.DefaultClient.Do(req)
	must(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(tr.r.Dir, fmt.Sprintf("%s.goroutines-%s", p.Name, when)), text, 0o644))
}

// parts are the processes that are watched for leaks.
func (r *rig) parts() []ledger.Part {
	var out []ledger.Part
	for _, p := range r.services() {
		if p.Alive() {
			out = append(out, ledger.Part{Name: p.Name, Admin: r.Admin(p), PID: p.PID()})
		}
	}
	return out
}

func (r *rig) services() []*system.Process {
	var out []*system.Process
	for _, list := range [][]*system.Process{r.Producers, r.Workers, r.Results} {
		out = append(out, list...)
	}
	return out
}

// conclude waits for the end of the load and the drain, and holds what was
// seen against Kafka. Healed is when the last fault was taken away.
func (tr *trial) conclude(t *testing.T, healed time.Time, within time.Duration) outcome {
	t.Helper()
	tr.load.Wait()
	must(t, tr.err)
	ctx, cancel := context.WithDeadline(t.Context(), healed.Add(within+time.Minute)) // late is late, not lost
	defer cancel()
	open, err := tr.poller.Drain(ctx)
	must(t, err)
	streams := tr.watcher.Wait(ctx)
	out := outcome{Drained: time.Since(healed)}
	out.InTime = open == 0 && streams == nil && out.Drained <= within
	tr.quiet()
	tr.others.Wait()
	must(t, tr.commits.Sample(t.Context()))
	if len(tr.r.Doors.Keys) > 1 {
		must(t, ledger.Foreign(t.Context(), tr.r.Doors, tr.book, 20))
	}
	must(t, ledger.Leaks(t.Context(), tr.book, tr.r.parts(), tr.base, memoryLimit))
	for _, p := range tr.r.parts() {
		tr.dump(t, p, tr.name+"-after")
	}
	out.Log, err = ledger.ReadLog(t.Context(), tr.r.Kafka.Addrs, "default")
	must(t, err)
	out.Verdict = ledger.Check(tr.book, out.Log, tr.commits)
	t.Log(out.Verdict)
	if out.Accepted*2 < out.Submitted {
		t.Errorf("of %d tasks only %d were accepted: the trial shows nothing", out.Submitted, out.Accepted)
	}
	return out
}

// measured sums an outcome up for the report.
func (o outcome) measured() string {
	return fmt.Sprintf("accepted %d, refused %d, unknown %d; %d restarts and %d gaps in %d streams; drained %.1f s after the last heal",
		o.Accepted, o.Refused, o.Unknown, o.Streams.Restarts, o.Streams.Gaps, o.Streams.Streams, o.Drained.Seconds())
}

// heal takes every fault away: links pass, whoever sleeps goes on, whoever died
// is started, and again if it ends because what it needs is not there yet, as
// any supervisor does.
func (r *rig) heal(t *testing.T, within time.Duration) {
	t.Helper()
	r.Links.Heal()
	servers := append(append([]*system.Process{}, r.Kafka.Brokers...), r.Redis.Process)
	if _, ok := eventually(t, within, func() bool { return r.revive(t.Context(), append(servers, r.services()...)) == nil }); !ok {
		t.Errorf("not everything serves again within %s: %v", within, r.revive(t.Context(), append(servers, r.services()...)))
	}
}

// revive starts what is not alive and reports who does not serve yet.
func (r *rig) revive(ctx context.Context, list []*system.Process) error {
	var errs []error
	for _, p := range list {
		if !p.Alive() {
			errs = append(errs, p.Start(), fmt.Errorf("%s was not alive", p.Name))
			continue
		}
		errs = append(errs, p.Cont(), p.Probe(ctx))
	}
	return errors.Join(errs...)
}
