// Package session opens, shows and forgets sessions: conversations that tasks
// belong to and, if they ask for it, are given the memory of.
//
// What is kept of a session are records of `penstock.conversations`, read back
// through their projection in Redis. Writes go on without Redis; reads do not.
package session

import (
	"context"
	"errors"
	"reflect"
	"time"

	"github.com/penstock/penstock/internal/convstore"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/conversation"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// Publisher writes records of conversations: *tasktopic.Publisher.
type Publisher interface {
	Conversation(ctx context.Context, r *conversation.Record) (tasktopic.Ack, error)
	BrokerNow() time.Time
}

// Store is their projection: *convstore.Store.
type Store interface {
	// Session returns a session with the newest turns, oldest first; or
	// convstore.ErrUnknown, or convstore.ErrRebuilding.
	Session(ctx context.Context, tenant, session string, newest int) (*convstore.Session, error)
}

// Results is the projection of how tasks ended: *taskstore.Store.
type Results interface {
	GetMany(ctx context.Context, ids []task.ID) ([]taskstore.Found, error)
	Params() taskstore.Params
}

// Claims has the contents that lie in the blob store: *claimcheck.Desk.
type Claims interface {
	Collect(ctx context.Context, p task.Payload) (_ task.Payload, release func(), err error)
	Task(ctx context.Context, view api.Task) (_ api.Task, release func(), err error)
}

// Params are the parts a Desk works with, and its limits; zero durations are
// the defaults.
type Params struct {
	Publisher Publisher
	Store     Store
	Results   Results
	Claims    Claims

	Timeout time.Duration // of one question to Redis; default 1 s
	Fetch   time.Duration // of all that one look fetches from the blob store; default 10 s
	Settle  time.Duration // the longest a write waits until it can be read; default 1 s
}

// Desk does what the routes of sessions ask. It is safe for concurrent use.
type Desk struct{ p Params }

// New returns a desk.
func New(p Params) *Desk {
	if p.Timeout == 0 {
		p.Timeout = time.Second
	}
	if p.Fetch == 0 {
		p.Fetch = 10 * time.Second
	}
	if p.Settle == 0 {
		p.Settle = time.Second
	}
	return &Desk{p}
}

// Open sets what a session is opened with, for a new one or one that goes on.
// Created is true if it is known that there was none. The settings count for
// every turn that begins afterwards.
func (d *Desk) Open(ctx context.Context, tenant, id string, s api.SessionSettings) (_ api.Session, created bool, err error) {
	settings, ttl, err := d.settings(s)
	if err != nil {
		return api.Session{}, false, err
	}
	_, before := d.read(ctx, tenant, id, 0)
	now := d.p.Publisher.BrokerNow().UTC()
	rec := &conversation.Record{
		SchemaVersion: task.SchemaVersion, Step: conversation.Opened, Tenant: tenant, SessionID: id, At: now, Until: now.Add(ttl), Settings: settings,
	}
	if err := d.write(ctx, rec); err != nil {
		return api.Session{}, false, err
	}
	d.settle(ctx, func(s *convstore.Session, err error) bool {
		return err == nil && reflect.DeepEqual(s.Settings, settings)
	}, rec)
	return d.shown(id, &convstore.Session{Settings: settings, Until: rec.Until}), errors.Is(before, convstore.ErrUnknown), nil
}

// Forget makes a session forget everything. One that is not there is forgotten
// too. A task that waits in it begins it anew.
func (d *Desk) Forget(ctx context.Context, tenant, id string) error {
	rec := &conversation.Record{
		SchemaVersion: task.SchemaVersion, Step: conversation.Deleted, Tenant: tenant, SessionID: id, At: d.p.Publisher.BrokerNow().UTC(),
	}
	if err := d.write(ctx, rec); err != nil {
		return err
	}
	d.settle(ctx, func(_ *convstore.Session, err error) bool { return errors.Is(err, convstore.ErrUnknown) }, rec)
	return nil
}

// write makes a record durable. A caller who hangs up does not change that.
func (d *Desk) write(ctx context.Context, rec *conversation.Record) error {
	if _, err := d.p.Publisher.Conversation(context.WithoutCancel(ctx), rec); err != nil {
		return &fault.Error{
			Code: fault.Unavailable, RetryAfter: time.Second, Err: err,
			Message: "Kafka did not confirm the change of the session; send it again, a second one does no harm",
		}
	}
	return nil
}

// settle waits a short while until what was written can be read, so that who
// looks next sees it. It is durable anyway.
func (d *Desk) settle(ctx context.Context, seen func(*convstore.Session, error) bool, rec *conversation.Record) {
	ctx, cancel := context.WithTimeout(ctx, d.p.Settle)
	defer cancel()
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		s, err := d.read(ctx, rec.Tenant, rec.SessionID, 0)
		if seen(s, err) || errors.Is(err, errAway) || !lifecycle.Pause(ctx, pause) {
			return
		}
	}
}

// errAway: Redis does not answer.
var errAway = errors.New("redis does not answer")

func (d *Desk) read(ctx context.Context, tenant, id string, newest int) (*convstore.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, d.p.Timeout)
	defer cancel()
	s, err := d.p.Store.Session(ctx, tenant, id, newest)
	if err == nil || errors.Is(err, convstore.ErrUnknown) || errors.Is(err, convstore.ErrRebuilding) {
		return s, err
	}
	return nil, errors.Join(errAway, err)
}
