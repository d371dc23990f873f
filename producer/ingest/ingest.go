// Package ingest accepts tasks: it gives each its id, finds its model, admits
// it, writes it to Kafka and only then says so.
//
// Delivery promise: an accepted task is on every in-sync replica. An error with
// code Unavailable whose message asks for the same Idempotency-Key means that
// the outcome is unknown; every other error means that nothing was written.
//
// Idempotency: tenant, key and body give one id per 24 h bucket, on any node
// and without a store. Redis adds what may be lost: that a key came with
// another body (422), that a task was published already (no second record), and
// which bucket a key fell into at first.
//
// Order: of the tasks of one tenant and ordering key only so many may wait. They
// are counted in Redis, and without it there is no limit.
package ingest

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/penstock/penstock/internal/callback"
	"github.com/penstock/penstock/internal/catalog"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/producer/rules"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/webhook"
)

// Publisher writes tasks to their topics.
type Publisher interface {
	// Task returns once the record is acknowledged, or its fate is decided.
	Task(ctx context.Context, t *task.Task, pool string, p task.Progress) (tasktopic.Ack, error)
	// TaskAsync calls done once, from any goroutine; done must not block.
	TaskAsync(ctx context.Context, t *task.Task, pool string, p task.Progress, done func(tasktopic.Ack, error))
	// WebhookAsync notes a step of a task's webhook; see TaskAsync.
	WebhookAsync(w *webhook.Record, done func(tasktopic.Ack, error))
	// BrokerNow is the present by the clock that deadlines are compared with.
	BrokerNow() time.Time
}

// Memory is what Redis knows of idempotency keys and tasks; all of it may be
// lost.
type Memory interface {
	// Fingerprint stores the body and id that a key came with unless the key is
	// known, and returns what was stored first; "" if this was the first.
	Fingerprint(ctx context.Context, tenant, key, bodyHash string, id task.ID) (firstHash string, firstID task.ID, err error)
	// Known reports for each task whether anything is known of it, which only a
	// durable task leaves behind.
	Known(ctx context.Context, ids []task.ID) ([]bool, error)
	Hinter
}

// Admission says whether a tenant may submit one more task now.
type Admission interface{ Task(tenant string) error }

// Backlog says whether unfinished work is so old that more of it could be lost.
type Backlog interface{ Over() bool }

// Router finds a model for a task that names none.
type Router interface {
	Route(id task.ID, m rules.Message) (model string, ok bool)
}

// Deps are the parts an Intake works with.
type Deps struct {
	Minter    *task.Minter
	Catalog   *catalog.Catalog
	Router    Router
	Admission Admission
	Backlog   Backlog
	Publisher Publisher
	Memory    Memory
	Queues    Queues // asked only where KeyQueueLimit is set
	Claims    Claims
	Hints     *Hints
	Metrics   *Metrics
	Log       *slog.Logger
}

// Params are the developer's choices.
type Params struct {
	MaxAge        time.Duration   // no deadline is further away
	Exempt        string          // tenant without limits of backlog and queues; may be empty
	KeyQueueLimit int             // tasks that may wait behind one ordering key of a tenant; 0: no limit
	Webhooks      callback.Policy // which webhooks are taken
	MemoryTimeout time.Duration   // of one question to Redis; default 250 ms
	PublishWait   time.Duration   // the longest a list of tasks, or a webhook, waits for its acknowledgements; default 10 s
}

// Intake accepts tasks. It is safe for concurrent use.
type Intake struct {
	d       Deps
	p       Params
	shared  singleflight.Group // identical keyed submits on this node write one record
	quiet   atomic.Int64       // Unix ns until when Redis is left alone after a failure
	cleaner cleaner            // of full queues
}

// New returns an Intake.
func New(d Deps, p Params) *Intake {
	if p.MemoryTimeout == 0 {
		p.MemoryTimeout = 250 * time.Millisecond
	}
	if p.PublishWait == 0 {
		p.PublishWait = 10 * time.Second
	}
	return &Intake{d: d, p: p, cleaner: cleaner{until: make(map[taskstore.Queue]time.Time)}}
}

// Submission is one task as a caller sends it.
type Submission struct {
	Tenant  string
	Request *api.SubmitRequest
	Key     string // idempotency key; empty: every submit is a task of its own
	Body    []byte // the request's JSON, which the key is bound to

	Kind   task.Kind // what is asked of the model; empty: what the payload's form says
	ID     task.ID   // as NewID gave it; empty: one is made. Not with a Key
	Repeat bool      // the ID was submitted before: it may be durable already

	// Before is called once the task has passed every check, before it is written;
	// its error keeps the task out. A task that is durable already skips it.
	Before func(ctx context.Context, t *task.Task) error
}

// Receipt says what was accepted.
type Receipt struct {
	ID     task.ID
	Repeat bool // the key was seen before and its task is already durable
}

// NewID makes an id for a task of a tenant that is to be accepted now.
func (in *Intake) NewID(tenant string) task.ID {
	return in.d.Minter.New(tenant, in.d.Publisher.BrokerNow().UTC())
}

// Accept accepts one task. It returns once the task is durable; a caller that
// hangs up does not change the outcome.
func (in *Intake) Accept(ctx context.Context, s Submission) (Receipt, error) {
	began := time.Now()
	receipt, err := in.accept(context.WithoutCancel(ctx), s)
	in.d.Metrics.accepted(receipt, err, time.Since(began))
	return receipt, err
}

func (in *Intake) accept(ctx context.Context, s Submission) (Receipt, error) {
	d, err := in.draft(s)
	if err != nil {
		return Receipt{}, err
	}
	if s.Repeat && in.durable(ctx, d) {
		return Receipt{ID: d.task.ID, Repeat: true}, nil
	}
	if s.Key == "" {
		return in.publish(ctx, d)
	}
	first := false // of the identical submits that are under way here
	v, err, _ := in.shared.Do(string(d.task.ID), func() (any, error) {
		first = true
		return in.acceptKeyed(ctx, d)
	})
	receipt, _ := v.(Receipt)
	receipt.Repeat = receipt.Repeat || !first && err == nil
	return receipt, err
}

func (in *Intake) acceptKeyed(ctx context.Context, d *draft) (Receipt, error) {
	known, err := in.recall(ctx, d)
	if err != nil || known {
		return Receipt{ID: d.task.ID, Repeat: known}, err
	}
	receipt, err := in.publish(ctx, d)
	if err == nil {
		in.remember(ctx, d)
	}
	return receipt, err
}

// publish makes a task durable, if its key's queue has room.
func (in *Intake) publish(ctx context.Context, d *draft) (Receipt, error) {
	if err := in.enqueue(ctx, d)[0]; err != nil {
		return Receipt{}, err
	}
	receipt, err := in.write(ctx, d)
	if d.leaves(err) {
		in.dequeue(ctx, d)
	}
	return receipt, err
}

func (in *Intake) write(ctx context.Context, d *draft) (Receipt, error) {
	in.register(d)
	if err := in.deposit(ctx, d); err != nil {
		return Receipt{}, err
	}
	waiting, cancel := context.WithTimeout(ctx, in.p.PublishWait)
	defer cancel()
	if err := d.awaitRegistration(waiting); err != nil {
		return Receipt{}, err
	}
	_, err := in.d.Publisher.Task(ctx, d.task, d.pool, task.Progress{})
	return in.settled(d, err)
}

// settled turns the outcome of a produce into the caller's answer.
func (in *Intake) settled(d *draft, err error) (Receipt, error) {
	if err != nil {
		return Receipt{}, publishFault(err)
	}
	in.d.Hints.Offer(d.hint())
	return Receipt{ID: d.task.ID}, nil
}

// Waits that a refused caller is told, whatever the client does about it.
const (
	retryFull    = time.Second
	retryUnknown = 2 * time.Second
	retryBacklog = 30 * time.Second
)

// publishFault says to the caller what a failed produce means to them.
func publishFault(err error) error {
	out := &fault.Error{Err: err}
	switch {
	case errors.Is(err, tasktopic.ErrFull):
		out.Code, out.RetryAfter = fault.Unavailable, retryFull
		out.Message = "too many tasks wait for Kafka; nothing was accepted, send again after the time in Retry-After"
	case errors.Is(err, tasktopic.ErrTooLarge):
		out.Code = fault.TooLarge
		out.Message = "the task is larger than its topic takes; send a smaller payload or fewer parameters, or have the server given a blob store"
	case errors.Is(err, tasktopic.ErrUnknown):
		out.Code, out.RetryAfter = fault.Unavailable, retryUnknown
		out.Message = "Kafka did not confirm the task, so it may or may not be accepted; send again with the same Idempotency-Key"
	default:
		out.Code, out.Message = fault.Internal, "the task could not be written; nothing was accepted"
	}
	return out
}
