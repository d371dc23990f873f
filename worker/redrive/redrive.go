package redrive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/joblog"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/wire"
)

// Publisher writes our topics; tasktopic.Publisher is one.
type Publisher interface {
	Terminal(ctx context.Context, t *terminal.Terminal) (tasktopic.Ack, error)
	Republish(ctx context.Context, rec wire.Record, t *task.Task, to string, pr task.Progress) (tasktopic.Ack, error)
	Control(ctx context.Context, key string, value []byte) (tasktopic.Ack, error)
	// BrokerNow is the present by the clock that deadlines are compared with.
	BrokerNow() time.Time
}

var _ Publisher = (*tasktopic.Publisher)(nil)

// Params are the developer's choices and the parts a Redriver works with.
type Params struct {
	Source    Source
	Publisher Publisher
	Store     Store
	Log       *slog.Logger
	Metrics   prometheus.Registerer

	ResultsPartitions int32    // of penstock.results
	Owner             string   // names this process in jobs, for people; New makes it unique
	Pools             []string // that have topics
	// PoolOfFunc names the pool that serves a model now, for letters whose own
	// pool is gone. Nil: such letters are skipped.
	PoolOfFunc func(model string) (string, bool)
	// Blobs gives large payloads a new life. Nil: a letter that needs it is not
	// done, and pauses its job.
	Blobs Blobs
	// Token is the bearer token of the admin routes. Empty: only requests over
	// loopback are answered.
	Token config.Secret
	// GoneAtFunc is when the result of a task is past its time to live: it
	// cannot be redriven then. Nil: always.
	GoneAtFunc func(id task.ID) time.Time

	MaxRedrives    int           // of one task, unless forced; default 5
	RampUp         time.Duration // from a tenth of a job's rate to the whole; default 5 s; negative: none
	LookEvery      time.Duration // between two looks at what became of redriven tasks; default 1 s
	IndexLimit     int           // letters in the index; default 100,000
	Lease          time.Duration // silence after which a job has lost its owner; default 15 s
	ProjectionWait time.Duration // for a reopening to be read back; default 10 s
	Patience       time.Duration // with failing I/O before a job pauses itself; default 30 s
	DrainGrace     time.Duration // for letters in flight when the process stops; default 5 s
}

func (p Params) withDefaults() Params {
	set := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	set(&p.Lease, 15*time.Second)
	set(&p.ProjectionWait, 10*time.Second)
	set(&p.Patience, 30*time.Second)
	set(&p.DrainGrace, 5*time.Second)
	set(&p.RampUp, 5*time.Second)
	set(&p.LookEvery, time.Second)
	if p.MaxRedrives == 0 {
		p.MaxRedrives = 5
	}
	if p.IndexLimit == 0 {
		p.IndexLimit = 100_000
	}
	return p
}

// maxJobs bounds the jobs one worker runs at a time; further ones wait, or
// another worker claims them.
const maxJobs = 4

// Redriver keeps the dead-letter index, runs redrive jobs and serves the admin
// routes over both. Run must be running for any of it to move.
type Redriver struct {
	p       Params
	source  Source
	pub     Publisher
	store   Store
	log     *slog.Logger
	metrics *metrics

	index   *index
	ledger  *ledger
	journal *joblog.Journal[entry]
}

// New returns a Redriver. It does no I/O.
func New(p Params) (*Redriver, error) {
	p = p.withDefaults()
	var errs []error
	for what, missing := range map[string]bool{
		"Source": p.Source == nil, "Publisher": p.Publisher == nil, "Store": p.Store == nil, "Log": p.Log == nil,
		"Metrics": p.Metrics == nil, "ResultsPartitions": p.ResultsPartitions < 1, "Owner": p.Owner == "", "Pools": len(p.Pools) == 0,
	} {
		if missing {
			errs = append(errs, fmt.Errorf("redrive: %s is required", what))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	p.Owner = joblog.OwnerName(p.Owner)
	r := &Redriver{
		p: p, source: p.Source, pub: p.Publisher, store: p.Store, log: p.Log,
		index: newIndex(p.IndexLimit), ledger: newLedger(),
	}
	r.metrics = newMetrics(p.Metrics,
		func() float64 { held, _ := r.index.size(); return float64(held) },
		func() float64 {
			if r.journal.CaughtUp() {
				return 1
			}
			return 0
		},
		func(s JobState) float64 { return float64(r.ledger.counts()[s]) })
	r.journal = joblog.NewJournal(joblog.JournalParams[entry]{
		Publisher: p.Publisher, Mark: r.ledger.Mark, Log: p.Log, Undecodable: r.metrics.undecodable.WithLabelValues("control"),
		DecodeFunc: decodeEntry, ApplyFunc: r.apply,
	})
	return r, nil
}

// Run reads the topics and runs jobs until ctx ends. It returns nil then: a
// topic that cannot be read is tried again, loudly. Letters in flight get
// DrainGrace to finish.
func (r *Redriver) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { joblog.Poll(ctx, r.log, r.read); return nil })
	g.Go(func() error { r.crew().Run(ctx); return nil })
	return g.Wait()
}

// read feeds the index and the ledger.
func (r *Redriver) read(ctx context.Context) error {
	b, err := r.source.Poll(ctx)
	if err == nil {
		r.take(b)
	}
	return err
}

func (r *Redriver) take(b Batch) {
	for _, l := range b.Letters {
		r.takeLetter(l)
	}
	r.journal.Fold(b.Control)
	if b.CaughtUp && !r.journal.CaughtUp() {
		held, evicted := r.index.size()
		r.log.Info("dead-letter index read", "letters", held, "evicted", evicted)
		r.journal.CatchUp()
	}
}

func (r *Redriver) takeLetter(l tasktopic.Read) {
	c, err := r.readCandidate(l.Record)
	if err != nil {
		r.metrics.undecodable.WithLabelValues("dead_letters").Inc()
		r.log.Warn("dead letter has no readable lineage and is not indexed", "partition", l.Partition, "offset", l.Offset, "err", err)
		return
	}
	if n := r.index.add(r.summary(&c, Ref{l.Partition, l.Offset}, l.Time)); n > 0 {
		r.metrics.evicted.Add(float64(n))
		r.log.Warn("dead-letter index is full, the oldest letters fell out", "evicted", n, "limit", r.p.IndexLimit)
	}
}

// apply folds one entry into the ledger and the index. heard is when its author
// was alive, by our clock.
func (r *Redriver) apply(e entry, heard time.Time) {
	r.ledger.apply(e, heard)
	r.takeMarks(&e)
}

// takeMarks notes in the index what an entry says about letters.
func (r *Redriver) takeMarks(e *entry) {
	if s := e.Step; s != nil && s.Outcome == Redriven {
		r.index.mark(s.Death, mark{redriven: true, job: e.Job})
	} else if s != nil && s.Reason == ReasonAlreadyRedriven {
		r.index.mark(s.Death, mark{redriven: true})
	}
	for _, death := range e.Deaths {
		r.index.mark(death, mark{discard: e.discard()})
	}
}

// crew claims jobs without a living owner and runs what it was granted.
func (r *Redriver) crew() *joblog.Crew {
	return &joblog.Crew{
		Ready: r.journal.Ready(), Lease: r.p.Lease, Slots: maxJobs, Mark: r.ledger.Mark, Log: r.log,
		Offers: func(now time.Time) []joblog.Offer { return r.ledger.offers(now, r.p.Lease) },
		Claim: func(ctx context.Context, o joblog.Offer) (int64, error) {
			return r.journal.Say(ctx, entry{Type: entryClaimed, Job: o.Job, Owner: r.p.Owner, Epoch: o.Epoch})
		},
		Granted: r.granted,
	}
}

// granted is the work of a claim that won.
func (r *Redriver) granted(o joblog.Offer) func(context.Context) {
	t, won := r.ledger.granted(o, r.p.Owner)
	if !won {
		return nil
	}
	return func(ctx context.Context) { r.runJob(ctx, t) }
}
