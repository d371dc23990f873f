// Package sweep ends the expired tasks that no worker meets: those of a pool
// without workers, and those stuck behind others.
//
// An expiry is a terminal that competes like every other, so sweeping twice, or
// a task that ends meanwhile, does no harm. What is due comes from an index in
// Redis, which the ingress and the scan fill. The scan reads what consumer
// groups have not settled, each record once, and everything again after Redis
// lost the index: so tasks are found that were never hinted, and none for good
// lost. While Redis is away nothing is swept.
//
// Guarantee: a task is ended by its deadline's own generation only, and not
// before Grace after its deadline by the brokers' clock.
package sweep

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/time/rate"

	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// Store is the index of deadlines and what else Redis knows of tasks:
// *taskstore.Store.
type Store interface {
	Due(ctx context.Context, before, again time.Time, n int) ([]taskstore.Due, error)
	PostponeDue(ctx context.Context, ended []taskstore.Due, again time.Time) error
	DropDue(ctx context.Context, gone []taskstore.Due) error
	GetMany(ctx context.Context, ids []task.ID) ([]taskstore.Found, error)
	Hint(ctx context.Context, hints []taskstore.Hint) error
	Scan(ctx context.Context) (taskstore.Scan, error)
	SetScanned(ctx context.Context, scan taskstore.Scan, at map[taskstore.Place]int64) error
	LeaseScan(ctx context.Context, length time.Duration) (bool, error)
	KeepScan(ctx context.Context, length time.Duration) error
}

// Publisher writes terminals: *tasktopic.Publisher.
type Publisher interface {
	TerminalAsync(t *terminal.Terminal, done func(tasktopic.Ack, error))
	BrokerNow() time.Time
}

// Params are the developer's choices; zero values are the defaults.
type Params struct {
	Pools     []string
	Grace     time.Duration // after a deadline; default 4 s, for workers end theirs after 2
	Every     time.Duration // between two looks at the index; default 1 s
	ScanEvery time.Duration // between two scans, over all processes; default 10 s
	Batch     int           // tasks taken at a time from each results partition; default 64
	Rate      float64       // records a scan reads in a second; default 5,000
}

func (p Params) withDefaults() Params {
	set := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	set(&p.Grace, 4*time.Second)
	set(&p.Every, time.Second)
	set(&p.ScanEvery, 10*time.Second)
	if p.Batch == 0 {
		p.Batch = 64
	}
	if p.Rate == 0 {
		p.Rate = 5000
	}
	return p
}

// Sweeper is one process's share of the sweeping. Run it once.
type Sweeper struct {
	store   Store
	pub     Publisher
	cl      *kgo.Client
	p       Params
	pace    *rate.Limiter
	log     *slog.Logger
	metrics *metrics
}

// New returns a sweeper. The client must have kafkaclient.ScanOpts and consume
// nothing; the sweeper does not own it.
func New(store Store, pub Publisher, cl *kgo.Client, p Params, log *slog.Logger, reg prometheus.Registerer) *Sweeper {
	p = p.withDefaults()
	return &Sweeper{
		store: store, pub: pub, cl: cl, p: p, log: log, metrics: newMetrics(reg),
		pace: rate.NewLimiter(rate.Limit(p.Rate), scanBatch),
	}
}

// Run sweeps until ctx ends.
func (s *Sweeper) Run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { s.repeat(ctx, s.p.Every, "expired tasks are not swept", s.sweep) })
	wg.Go(func() { s.repeat(ctx, s.p.ScanEvery, "open tasks are not indexed", s.scan) })
	wg.Wait()
}

// repeat does something at intervals, and says when it fails and works again.
func (s *Sweeper) repeat(ctx context.Context, every time.Duration, trouble string, do func(context.Context) error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	failing := false
	for {
		err := do(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			s.log.Warn(trouble, "err", err)
		case err == nil && failing:
			s.log.Info("the sweeper works again", "after", trouble)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
