package dispatch

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/wire"
	"github.com/penstock/penstock/worker/attempt"
	"github.com/penstock/penstock/worker/batch"
	"github.com/penstock/penstock/worker/consume"
	"github.com/penstock/penstock/worker/retry"
	"github.com/penstock/penstock/worker/route"
	"github.com/penstock/penstock/worker/schedule"
)

// Publisher writes outcomes; tasktopic.Publisher is one. The callbacks may run
// on any goroutine, also before the call returns.
type Publisher interface {
	TerminalAsync(t *terminal.Terminal, done func(tasktopic.Ack, error))
	RepublishAsync(rec wire.Record, t *task.Task, to string, pr task.Progress, done func(tasktopic.Ack, error))
	DeadLetter(ctx context.Context, original wire.Record, l deadletter.Letter) (tasktopic.Ack, error)
	BrokerNow() time.Time
}

// Params are the parts a Loop works with and its limits; zero durations are
// defaults.
type Params struct {
	Pool      string
	Runner    *attempt.Runner
	Router    *route.Router // its Run is somebody else's
	Batch     batch.Policy
	Publisher Publisher
	Results   Results // default: no blob store
	Log       *slog.Logger
	Metrics   prometheus.Registerer
	Worker    string // in the history of attempts
	Build     string // in dead letters
	Group     string // consumer group, in dead letters

	// BackoffFunc is the wait before the next try after attempt n failed, or
	// after the n-th fault of the system; hint is what the other side asked
	// for.
	BackoffFunc func(n int, hint time.Duration) time.Duration
	// HealthyFunc reports whether a backend passes active health checks now; a
	// backend that has none does not. Nil: none does.
	HealthyFunc func(backend string) bool
	// BlockedFunc returns deliveries that hold up a partition's span; nil: none.
	BlockedFunc func() []*consume.Delivery

	DrainGrace  time.Duration // for what runs when the worker stops; default 25 s
	MemoryWait  time.Duration // longest wait in memory of tasks without an ordering key; default 5 s
	ExpiryGrace time.Duration // after the deadline until `expired` is written; default 2 s

	// HeldLimit is how long a task waits for another worker that seems to run
	// it; default 2 min. It should be above the longest try, for which an
	// honest worker's claim beats.
	HeldLimit time.Duration
}

func (p Params) withDefaults() Params {
	set := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	set(&p.DrainGrace, 25*time.Second)
	set(&p.MemoryWait, 5*time.Second)
	set(&p.ExpiryGrace, 2*time.Second)
	set(&p.HeldLimit, 2*time.Minute)
	if p.Results == nil {
		p.Results = claimcheck.New(nil, claimcheck.Params{})
	}
	if p.HealthyFunc == nil {
		p.HealthyFunc = func(string) bool { return false }
	}
	return p
}

// Loop is one pool's loop.
type Loop struct {
	p       Params
	log     *slog.Logger
	m       *metrics
	batches *batch.Metrics
	inbox   *inbox
	seen    atomic.Pointer[Flood]
	workers sync.WaitGroup // batches and dead letters on their way

	// Owned by Run.
	entries  map[identity]*entry
	byID     map[task.ID][]*entry
	queue    *schedule.Queue[*entry]
	batcher  *batch.Batcher[*entry]
	widest   map[string]int // by model: how many tasks may share a call, as last seen
	alarms   alarms
	budget   retry.Budget
	flood    flood
	busy     int // entries running or publishing
	draining bool
	work     context.Context // ends what runs
	stopWork context.CancelCauseFunc
}

// New returns a loop. Deliveries may come before Run does.
func New(p Params) (*Loop, error) {
	p = p.withDefaults()
	batches, err := batch.NewMetrics(p.Metrics, p.Pool)
	if err != nil {
		return nil, fmt.Errorf("pool %s: %w", p.Pool, err)
	}
	return &Loop{
		p: p, log: p.Log.With("pool", p.Pool), inbox: newInbox(), m: newMetrics(p.Metrics, p.Pool), batches: batches,
		entries: map[identity]*entry{}, byID: map[task.ID][]*entry{},
		queue: schedule.New[*entry](), batcher: batch.New[*entry](p.Batch), widest: map[string]int{},
	}, nil
}

// blockedEvery is how often heads that hold up a partition are looked for.
const blockedEvery = time.Second

// Run works until ctx is done and then drains: what runs may finish within the
// grace, what has not started is given back. It returns when nothing is on its
// way to a backend or to Kafka any more, or when grace and a last while for
// Kafka are over.
func (l *Loop) Run(ctx context.Context) {
	l.work, l.stopWork = context.WithCancelCause(context.WithoutCancel(ctx))
	defer l.m.unregister()
	defer l.workers.Wait()
	defer func() { l.stopWork(attempt.ErrDraining) }()
	l.watchBlocked()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	stop, over := ctx.Done(), (<-chan time.Time)(nil)
	for {
		l.step()
		if l.draining && l.busy == 0 {
			return
		}
		timer.Reset(l.untilNext())
		select {
		case <-stop:
			stop = nil
			end := time.NewTimer(l.p.DrainGrace + publishGrace)
			defer end.Stop()
			over = end.C
			l.drain()
		case <-over:
			l.log.Warn("not everything could be written before the end: it is run again", "tasks", l.busy)
			return
		case <-l.inbox.wake:
		case <-l.p.Router.Changed():
		case <-timer.C:
		}
	}
}

// step handles everything that has happened and starts what can start.
func (l *Loop) step() {
	m := l.inbox.take()
	for _, d := range m.deliveries {
		l.admit(d)
	}
	if m.revoked {
		l.dropRevoked()
	}
	for _, id := range m.cancels {
		l.cancel(id)
	}
	for _, event := range m.events {
		event()
	}
	now := time.Now()
	l.alarms.ring(now)
	if !l.draining {
		l.feed(now)
	}
	l.m.waiting.Set(float64(l.queue.Len()))
	l.m.inFlight.Set(float64(len(l.entries)))
}

// untilNext is how long the loop may sleep.
func (l *Loop) untilNext() time.Duration {
	wait := time.Hour
	if at, ok := l.alarms.next(); ok {
		wait = min(wait, time.Until(at))
	}
	if at, ok := l.batcher.Due(); ok && !l.draining {
		wait = min(wait, time.Until(at))
	}
	return max(0, wait)
}

// watchBlocked parks heads that hold up a partition, from time to time.
func (l *Loop) watchBlocked() {
	if l.p.BlockedFunc == nil {
		return
	}
	l.alarms.set(time.Now().Add(blockedEvery), func() {
		if !l.draining {
			l.parkBlocked()
			l.watchBlocked()
		}
	})
}
