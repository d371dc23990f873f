package bulk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/callback"
	"github.com/penstock/penstock/internal/joblog"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/producer/cancel"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/webhook"
)

// Source reads penstock.control from its start; tasktopic.Replay is one.
type Source interface {
	// Poll waits for entries. CaughtUp is true once everything that was there at
	// the first Poll has been handed out, and from then on.
	Poll(ctx context.Context) (entries []tasktopic.Read, caughtUp bool, err error)
}

// Publisher writes penstock.control and, of ends that somebody wants to hear of,
// penstock.webhooks; tasktopic.Publisher is one.
type Publisher interface {
	Control(ctx context.Context, key string, value []byte) (tasktopic.Ack, error)
	Webhook(ctx context.Context, w *webhook.Record) (tasktopic.Ack, error)
	// BrokerNow is the present by the clock that windows are compared with.
	BrokerNow() time.Time
}

// Blobs keeps contents; blob.Store is one.
type Blobs interface {
	Put(ctx context.Context, r io.Reader, limit int64) (task.Ref, error)
	Keep(ctx context.Context, name string, until time.Time, r io.Reader, limit int64) (task.Ref, error)
	Open(ctx context.Context, ref task.Ref) (io.ReadCloser, error)
	Remove(ctx context.Context, ref task.Ref) error
}

// Intake accepts tasks; ingest.Intake is one.
type Intake interface {
	Check(s ingest.Submission) error
	AcceptAll(ctx context.Context, n int, item func(i int) (ingest.Submission, error)) []ingest.Result
}

// Waiter waits for the terminal of a task that wins; ctx bounds the wait.
type Waiter interface {
	Wait(ctx context.Context, id task.ID) (*terminal.Terminal, uint8, error)
}

// Results brings large outputs back: *claimcheck.Desk. The error is of trouble
// that may pass.
type Results interface {
	Task(ctx context.Context, view api.Task) (_ api.Task, release func(), err error)
}

// Canceller stops a tenant's task; cancel.Desk is one.
type Canceller interface {
	Cancel(ctx context.Context, tenant string, id task.ID) (cancel.Outcome, error)
}

var (
	_ Source    = (*tasktopic.Replay)(nil)
	_ Publisher = (*tasktopic.Publisher)(nil)
	_ Intake    = (*ingest.Intake)(nil)
	_ Canceller = (*cancel.Desk)(nil)
)

// Params are the developer's choices and the parts a Desk works with. All are
// required unless noted.
type Params struct {
	Blobs     Blobs  // nil: there are no files, and every call says so
	Source    Source // not without Blobs
	Publisher Publisher
	Intake    Intake
	Waiter    Waiter
	Results   Results
	Cancels   Canceller
	Dialect   Dialect
	Log       *slog.Logger
	Metrics   prometheus.Registerer

	Owner      string          // names this process in the log; New makes it unique
	MaxTaskAge time.Duration   // no deadline is further away
	MaxFile    int64           // bytes of an uploaded file
	MaxLine    int             // bytes of one line
	FileLife   time.Duration   // of a file whose client names no shorter one, and the longest
	Webhooks   callback.Policy // which webhooks are taken
	Window     int             // tasks of one batch in flight
	Batches    int             // run by this process at a time

	SegmentBytes int           // of output, after which it is stored; default 1 MiB
	SegmentLines int           // likewise; default 1000
	SegmentAge   time.Duration // likewise; default 5 s
	Lease        time.Duration // silence after which a batch has lost its owner; default 15 s
	StopWait     time.Duration // for the ends of tasks after a cancel, or the window's end; default 2 min
}

func (p Params) withDefaults() Params {
	set := func(n *int, otherwise int) {
		if *n == 0 {
			*n = otherwise
		}
	}
	wait := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	set(&p.SegmentBytes, 1<<20)
	set(&p.SegmentLines, 1000)
	wait(&p.SegmentAge, 5*time.Second)
	wait(&p.Lease, 15*time.Second)
	wait(&p.StopWait, 2*time.Minute)
	return p
}

// Desk keeps files and runs batches. Nothing moves before Run.
type Desk struct {
	p       Params
	log     *slog.Logger
	metrics *metrics
	ledger  *ledger
	journal *joblog.Journal[entry]
	uploads chan struct{} // one token for each upload under way
}

// maxUploads bounds the files that come in at a time. Each takes a connection
// and some buffers, not its size.
const maxUploads = 32

// New returns a Desk. It does no I/O.
func New(p Params) (*Desk, error) {
	p = p.withDefaults()
	for what, missing := range map[string]bool{
		"Source": p.Source == nil && p.Blobs != nil, "Publisher": p.Publisher == nil, "Intake": p.Intake == nil, "Waiter": p.Waiter == nil,
		"Results": p.Results == nil, "Cancels": p.Cancels == nil, "Dialect": p.Dialect == nil, "Log": p.Log == nil, "Metrics": p.Metrics == nil,
		"Owner": p.Owner == "", "MaxTaskAge": p.MaxTaskAge <= deadlineSlack, "MaxFile": p.MaxFile < 1, "MaxLine": p.MaxLine < 1,
		"FileLife": p.FileLife < leastLife, "Window": p.Window < 1, "Batches": p.Batches < 1,
	} {
		if missing {
			return nil, fmt.Errorf("bulk: %s is required", what)
		}
	}
	p.Owner = joblog.OwnerName(p.Owner)
	d := &Desk{p: p, log: p.Log, ledger: newLedger(), uploads: make(chan struct{}, maxUploads)}
	d.metrics = newMetrics(p.Metrics, d.ledger)
	d.journal = joblog.NewJournal(joblog.JournalParams[entry]{
		Publisher: p.Publisher, Mark: d.ledger.Mark, Log: p.Log, Undecodable: d.metrics.undecodable,
		DecodeFunc: decodeEntry, ApplyFunc: d.ledger.apply,
	})
	return d, nil
}

// forgetEvery is how often what expired is dropped.
const forgetEvery = 10 * time.Minute

// Run reads the log and runs batches until ctx ends. Those under way are then
// left to another process, or to the next start of this one. The log is read
// until the last of them is left: what is stored by then must be seen to count.
func (d *Desk) Run(ctx context.Context) {
	if d.p.Blobs == nil {
		return
	}
	reading, stop := context.WithCancel(context.WithoutCancel(ctx))
	var reader, work sync.WaitGroup
	reader.Go(func() { joblog.Poll(reading, d.log, d.read) })
	work.Go(func() { d.tidy(ctx) })
	work.Go(func() { d.crew().Run(ctx) })
	work.Wait()
	stop()
	reader.Wait()
}

func (d *Desk) read(ctx context.Context) error {
	entries, caughtUp, err := d.p.Source.Poll(ctx)
	if err != nil {
		return err
	}
	d.journal.Fold(entries)
	if caughtUp && !d.journal.CaughtUp() {
		d.ledger.forget(d.p.Publisher.BrokerNow())
		files, batches := d.ledger.size()
		d.log.Info("files and batches read", "files", files, "batches", len(batches))
		d.journal.CatchUp()
	}
	return nil
}

// tidy drops what expired. Every process does: a content that is gone already
// is no trouble.
func (d *Desk) tidy(ctx context.Context) {
	for lifecycle.Pause(ctx, forgetEvery) {
		if !d.journal.CaughtUp() {
			continue
		}
		for _, f := range d.ledger.forget(d.p.Publisher.BrokerNow()) {
			if err := d.p.Blobs.Remove(ctx, f.Content); err != nil && ctx.Err() == nil {
				d.log.Warn("content of an expired file not removed: it goes with its day", "file", f.ID, "err", err)
			}
		}
	}
}

// crew runs batches that have no living owner.
func (d *Desk) crew() *joblog.Crew {
	return &joblog.Crew{
		Ready: d.journal.Ready(), Lease: d.p.Lease, Slots: d.p.Batches, Mark: d.ledger.Mark, Log: d.log,
		Offers: func(now time.Time) []joblog.Offer { return d.ledger.offers(now, d.p.Lease) },
		Claim: func(ctx context.Context, o joblog.Offer) (int64, error) {
			return d.journal.Say(ctx, entry{Type: entryClaimed, ID: o.Job, Owner: d.p.Owner, Epoch: o.Epoch})
		},
		Granted: d.granted,
	}
}

// granted is the work of a claim that won.
func (d *Desk) granted(o joblog.Offer) func(context.Context) {
	t, won := d.ledger.granted(o, d.p.Owner)
	if !won {
		return nil
	}
	return func(ctx context.Context) { d.run(ctx, t) }
}

// settle writes an entry of a client and waits until it is folded here, so that
// whoever asks next sees it.
func (d *Desk) settle(ctx context.Context, e entry) error {
	at, err := d.journal.Say(ctx, e)
	if err != nil {
		return unavailable("Kafka did not confirm it; ask whether it is there, and send it again if not", err)
	}
	ctx, cancel := context.WithTimeout(ctx, settleWait)
	defer cancel()
	if err := d.ledger.Await(ctx, at); err != nil {
		return unavailable("it is accepted and cannot be shown yet; ask for the list in a moment", err)
	}
	return nil
}

const (
	settleWait = 5 * time.Second
	// freshWait is how long an id that was given out a moment ago, perhaps by
	// another process, is waited for.
	freshWait = time.Second
	fresh     = 5 * time.Second
)

// open reports whether calls can be answered. After a start it waits until the
// log is read, which takes a moment.
func (d *Desk) open(ctx context.Context) error {
	if d.p.Blobs == nil {
		return &fault.Error{Code: fault.Unavailable, Message: "files and batches need a blob store, and this server has none: its operator sets blob_url", Err: ErrNoStore}
	}
	if d.journal.CaughtUp() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, settleWait)
	defer cancel()
	select {
	case <-d.journal.Ready():
		return nil
	case <-ctx.Done():
		return unavailable("files and batches are being read back after a start; ask again in a moment", nil)
	}
}

// ErrNoStore is the cause of every refusal where no blob store is configured:
// asking again is in vain.
var ErrNoStore = errors.New("no blob store is configured")

// find looks for something by id. One that was made a moment ago, as its id
// says, may not have arrived here.
func find[T any](ctx context.Context, d *Desk, prefix, id string, look func() (T, bool)) (T, error) {
	var zero T
	if err := d.open(ctx); err != nil {
		return zero, err
	}
	made := joblog.IDTime(prefix, id)
	if now := d.p.Publisher.BrokerNow(); made.IsZero() || now.Sub(made).Abs() > fresh || d.ledger.wasDeleted(id) {
		if v, ok := look(); ok {
			return v, nil
		}
		return zero, notFound(prefix)
	}
	ctx, cancel := context.WithTimeout(ctx, freshWait)
	defer cancel()
	for {
		changed := d.ledger.Changed()
		if v, ok := look(); ok {
			return v, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return zero, notFound(prefix)
		}
	}
}

func notFound(prefix string) error {
	if prefix == filePrefix {
		return fault.New(fault.NotFound, "no such file: it was deleted, expired, or never yours; see GET /v1/files")
	}
	return fault.New(fault.NotFound, "no such batch; see GET /v1/batches")
}

func unavailable(message string, err error) error {
	return &fault.Error{Code: fault.Unavailable, RetryAfter: time.Second, Message: message, Err: err}
}
