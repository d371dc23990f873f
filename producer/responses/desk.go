package responses

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/internal/convstore"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/lookup"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/producer/cancel"
	"github.com/penstock/penstock/producer/openai"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/conversation"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// Publisher writes penstock.conversations: *tasktopic.Publisher.
type Publisher interface {
	Conversation(ctx context.Context, r *conversation.Record) (tasktopic.Ack, error)
	BrokerNow() time.Time
}

// Store is the projection of penstock.conversations: *convstore.Store.
type Store interface {
	Stored(ctx context.Context, id task.ID) (r *convstore.Request, deleted bool, err error)
}

// Claims keeps what is large out of the records: *claimcheck.Desk.
type Claims interface {
	Deposit(ctx context.Context, p task.Payload) (task.Payload, error)
	Collect(ctx context.Context, p task.Payload) (_ task.Payload, release func(), err error)
}

// Tasks reads tasks: *lookup.Reader.
type Tasks interface {
	Task(ctx context.Context, id task.ID, wait time.Duration, drain context.Context) (_ api.Task, release func(), err error)
}

// Canceller stops a tenant's task: *cancel.Desk.
type Canceller interface {
	Cancel(ctx context.Context, tenant string, id task.ID) (cancel.Outcome, error)
}

var (
	_ Publisher = (*tasktopic.Publisher)(nil)
	_ Store     = (*convstore.Store)(nil)
	_ Tasks     = (*lookup.Reader)(nil)
	_ Canceller = (*cancel.Desk)(nil)
)

// Params are the parts a Desk works with, and the developer's choices.
type Params struct {
	Publisher Publisher
	Store     Store
	Claims    Claims
	Tasks     Tasks
	Cancels   Canceller
	IDs       lookup.IDs

	Life     time.Duration // of what is kept: above the longest that a task's result can be read
	MaxChain int64         // bytes of the messages that previous_response_id brings
	Patience time.Duration // for what was written a moment ago to be projected; default 1 s
}

const (
	patienceDefault = time.Second
	lookAgain       = 20 * time.Millisecond
	fresh           = time.Minute // older ids are not waited for
)

// Desk keeps and finds responses. It is safe for concurrent use.
type Desk struct{ p Params }

// New returns a Desk.
func New(p Params) *Desk {
	if p.Patience == 0 {
		p.Patience = patienceDefault
	}
	return &Desk{p}
}

// Keep makes the request of a response durable. Its task must not be written
// when that fails.
func (d *Desk) Keep(ctx context.Context, tenant string, id task.ID, r *openai.ResponseRequest) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode request of response: %w", err)
	}
	rec := d.record(conversation.Stored, tenant, id)
	rec.Until = rec.At.Add(d.p.Life)
	payload, err := d.p.Claims.Deposit(ctx, task.Payload{Messages: raw})
	if err == nil {
		rec.Content, rec.ContentRef = payload.Messages, payload.Ref
		err = d.write(ctx, rec)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, tasktopic.ErrTooLarge), errors.Is(err, blob.ErrTooLarge):
		return fault.New(fault.TooLarge, "the request is larger than what can be stored; send less, or without store")
	}
	return unavailable("the response could not be stored, so nothing was accepted; send again after the time in Retry-After, or without store", err)
}

func (d *Desk) record(step conversation.Step, tenant string, id task.ID) *conversation.Record {
	return &conversation.Record{SchemaVersion: task.SchemaVersion, Step: step, Tenant: tenant, TaskID: id, At: d.p.Publisher.BrokerNow().UTC()}
}

func (d *Desk) write(ctx context.Context, rec *conversation.Record) error {
	_, err := d.p.Publisher.Conversation(ctx, rec)
	return err
}

// unavailable says why, and is not the error itself: that the fate of a record is
// unknown says nothing of a task, which was certainly not written.
func unavailable(message string, err error) error {
	return &fault.Error{Code: fault.Unavailable, RetryAfter: time.Second, Message: message, Err: errors.New(err.Error())}
}

// Find returns a stored response of a tenant. One that was stored a moment ago is
// waited for. Errors: NotFound for one that was deleted, never stored, is another
// tenant's or past its life, Unavailable while that cannot be said.
func (d *Desk) Find(ctx context.Context, tenant, id string) (openai.Response, error) {
	of, ok := openai.ResponseTask(id)
	if !ok || d.p.IDs.Check(of, tenant) != nil {
		return openai.Response{}, notFound()
	}
	kept, err := d.look(ctx, of)
	if err != nil {
		return openai.Response{}, err
	}
	r := openai.Response{Task: of, Request: new(openai.ResponseRequest), Restored: kept.Restored}
	return r, d.open(ctx, kept, r.Request)
}

func notFound() error {
	return fault.New(fault.NotFound, "no such response: it was never stored, has been deleted, or is no longer kept")
}

// look asks for a response until the projection can be taken at its word.
func (d *Desk) look(ctx context.Context, id task.ID) (*convstore.Request, error) {
	until := time.Now().Add(d.p.Patience)
	for {
		kept, deleted, err := d.p.Store.Stored(ctx, id)
		late := !time.Now().Before(until) || ctx.Err() != nil
		switch {
		case err == nil:
			return kept, nil
		case deleted:
			return nil, notFound()
		case errors.Is(err, convstore.ErrUnknown):
			if late || !d.isFresh(id) {
				return nil, notFound()
			}
		case !errors.Is(err, convstore.ErrRebuilding), late:
			return nil, lookup.Unavailable(err)
		}
		lifecycle.Pause(ctx, lookAgain)
	}
}

// isFresh reports whether a response may have been stored a moment ago.
func (d *Desk) isFresh(id task.ID) bool {
	return id.Keyed() || d.p.Publisher.BrokerNow().Sub(id.Time()) < fresh
}

// open reads what was kept.
func (d *Desk) open(ctx context.Context, kept *convstore.Request, into *openai.ResponseRequest) error {
	payload, release, err := d.p.Claims.Collect(ctx, task.Payload{Messages: kept.Content, Ref: kept.ContentRef})
	if err != nil {
		return lookup.Unavailable(err)
	}
	defer release()
	if err := json.Unmarshal(payload.Messages, into); err != nil {
		return fmt.Errorf("read stored response: %w", err)
	}
	return nil
}

// View returns the task of a response, its output in it. The caller releases it
// once it is sent. NotFound once the result is past its time to live.
func (d *Desk) View(ctx context.Context, r openai.Response) (api.Task, func(), error) {
	view, release, err := d.p.Tasks.Task(ctx, r.Task, 0, ctx)
	if fault.CodeOf(err) == fault.Gone {
		return api.Task{}, nil, notFound()
	}
	return view, release, err
}

// Cancel stops a response that runs in the background, and returns its task as it
// ended; as it is known, if that takes long. Once more changes nothing.
func (d *Desk) Cancel(ctx context.Context, tenant, id string) (openai.Response, api.Task, error) {
	r, err := d.Find(ctx, tenant, id)
	if err != nil {
		return r, api.Task{}, err
	}
	if !r.Request.Echo.Background {
		return r, api.Task{}, fault.New(fault.Malformed, "only a response that was created with background can be cancelled; hang up to cancel another")
	}
	out, err := d.p.Cancels.Cancel(ctx, tenant, r.Task)
	if fault.CodeOf(err) == fault.Gone {
		return r, api.Task{}, notFound()
	}
	return r, out.Task, err
}

// Delete makes a response unfindable, and stops it if it runs. When it returns,
// nobody finds the response any more.
func (d *Desk) Delete(ctx context.Context, tenant, id string) (task.ID, error) {
	r, err := d.Find(ctx, tenant, id)
	if err != nil {
		return "", err
	}
	if _, err := d.p.Cancels.Cancel(ctx, tenant, r.Task); err != nil && fault.CodeOf(err) != fault.Gone {
		return "", err
	}
	if err := d.write(context.WithoutCancel(ctx), d.record(conversation.Deleted, tenant, r.Task)); err != nil {
		return "", unavailable("Kafka did not confirm the deletion; send it again", err)
	}
	until := time.Now().Add(d.p.Patience)
	for time.Now().Before(until) && ctx.Err() == nil {
		if _, deleted, err := d.p.Store.Stored(ctx, r.Task); deleted || err != nil {
			break
		}
		lifecycle.Pause(ctx, lookAgain)
	}
	return r.Task, nil
}
