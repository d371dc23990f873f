// Package claimcheck keeps large payloads and results out of the records: it
// puts them into the blob store before the record is written, and brings them
// back, checked, for whoever needs them.
//
// Guarantee: a reference is only given out for content that is durable, and
// content only for a reference whose hash it has. Without a store everything
// stays in the records, and a reference is trouble that may pass: who has no
// store configured must not judge that the content is lost.
package claimcheck

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"
	"golang.org/x/sync/semaphore"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/schema/task"
)

// Inline is the largest content, in bytes, that travels in its record where
// there is a store.
const Inline = 256 << 10

// Errors besides those of the store.
var (
	// ErrNoStore: a reference was met, and no blob_url is configured.
	ErrNoStore = errors.New("no blob store is configured: set blob_url to that of the other services")
	// ErrContent: the blob has its hash, and is not what the record says it is.
	ErrContent = errors.New("blob is not what its record says")
)

// Store keeps the contents: *blob.Store.
type Store interface {
	Put(ctx context.Context, r io.Reader, limit int64) (task.Ref, error)
	Bytes(ctx context.Context, ref task.Ref, limit int64) ([]byte, error)
}

// Params are the developer's choices; zero values are the defaults.
type Params struct {
	Limit int64         // largest content; default 64 MiB
	Room  int64         // bytes of fetched contents that are held at once; default 256 MiB, at least Limit
	Wait  time.Duration // the longest a content may take to be put or fetched; default 30 s
}

func (p Params) withDefaults() Params {
	if p.Limit == 0 {
		p.Limit = int64(blob.DefaultConfig().MaxBytes)
	}
	if p.Room == 0 {
		p.Room = 256 << 20
	}
	p.Room = max(p.Room, p.Limit)
	if p.Wait == 0 {
		p.Wait = 30 * time.Second
	}
	return p
}

// Desk takes in contents and hands them out. It is safe for concurrent use.
//
// A store that does not answer is left alone for a while: callers are told at
// once instead of waiting, since what they hold meanwhile (a place on a backend,
// a connection) is wanted by work that needs no store.
type Desk struct {
	store   Store // nil: none
	p       Params
	room    *semaphore.Weighted
	breaker *gobreaker.CircuitBreaker[struct{}]
}

const (
	strikes = 3               // failures in a row until the store is left alone
	respite = 5 * time.Second // until one call tries again
)

// New returns a desk over a store; nil is none.
func New(store Store, p Params) *Desk {
	p = p.withDefaults()
	return &Desk{store: store, p: p, room: semaphore.NewWeighted(p.Room), breaker: gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Timeout:      respite,
		ReadyToTrip:  func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= strikes },
		IsSuccessful: func(err error) bool { return err == nil || !errors.Is(err, blob.ErrUnavailable) },
	})}
}

// Deps are what Open shares with its process.
type Deps struct {
	Service  string // in the names of metrics
	Registry prometheus.Registerer
	Log      *slog.Logger
	Wait     time.Duration // as in Params
}

// Open returns a desk as the operator configured it, and its store, nil if there
// is none. A store that does not answer is warned of: what is small goes on
// without it.
func Open(ctx context.Context, c blob.Config, d Deps) (*Desk, *blob.Store, error) {
	if c.URL == "" {
		return New(nil, Params{Wait: d.Wait}), nil, nil
	}
	store, err := blob.New(c, blob.Params{Service: d.Service, Registry: d.Registry})
	if err != nil {
		return nil, nil, fmt.Errorf("open blob store: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := store.Check(ctx); err != nil {
		d.Log.Warn("the blob store does not answer: large payloads and results wait for it", "err", err)
	}
	return New(store, Params{Limit: int64(c.MaxBytes), Wait: d.Wait}), store, nil
}

const (
	checkTimeout = 5 * time.Second
	bodyRoom     = 1 << 20 // for what a request says beside its payload
)

// BodyLimit is the largest request body of a server: the one it has without a
// store, or one that the largest payload fits in.
func BodyLimit(c blob.Config, without config.Bytes) config.Bytes {
	if c.URL == "" {
		return without
	}
	return max(without, c.MaxBytes+bodyRoom)
}

// Limit is the largest content the desk takes; 0 without a store.
func (d *Desk) Limit() int64 {
	if d.store == nil {
		return 0
	}
	return d.p.Limit
}

// Deposit returns what the record carries instead of the payload: the payload
// itself if it is small or there is no store, else a reference to it.
func (d *Desk) Deposit(ctx context.Context, p task.Payload) (task.Payload, error) {
	if d.store == nil || p.Ref != nil || p.Size() <= Inline {
		return p, nil
	}
	ref, err := d.put(ctx, p)
	if err != nil {
		return p, fmt.Errorf("deposit payload: %w", err)
	}
	return task.Payload{Ref: &ref}, nil
}

// DepositOutput returns a reference to an output that should not travel in a
// record; nil if it should.
func (d *Desk) DepositOutput(ctx context.Context, o *task.Output) (*task.Ref, error) {
	if !d.Wants(o) {
		return nil, nil
	}
	ref, err := d.put(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("deposit output: %w", err)
	}
	return &ref, nil
}

// Wants reports whether DepositOutput would put an output into the store.
func (d *Desk) Wants(o *task.Output) bool {
	return d.store != nil && o != nil && o.Size() > Inline
}

func (d *Desk) put(ctx context.Context, v any) (task.Ref, error) {
	ctx, cancel := context.WithTimeout(ctx, d.p.Wait)
	defer cancel()
	var content bytes.Buffer
	enc := json.NewEncoder(&content)
	enc.SetEscapeHTML(false) // as in records
	if err := enc.Encode(v); err != nil {
		return task.Ref{}, err
	}
	var ref task.Ref
	err := d.ask(ctx, func() (err error) {
		ref, err = d.store.Put(ctx, bytes.NewReader(bytes.TrimSuffix(content.Bytes(), []byte("\n"))), d.p.Limit)
		return err
	})
	return ref, err
}

// ask calls the store, unless it is left alone just now.
func (d *Desk) ask(ctx context.Context, call func() error) error {
	_, err := d.breaker.Execute(func() (struct{}, error) {
		err := call()
		if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("%w: %w", blob.ErrUnavailable, err) // patience is over
		}
		return struct{}{}, err
	})
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		return fmt.Errorf("%w: it failed %d times in a row and is left alone", blob.ErrUnavailable, strikes)
	}
	return err
}

// Collect returns the payload behind a claim check, or the payload itself if it
// is none. The caller releases it when it is no longer used: until then it takes
// room that others wait for.
func (d *Desk) Collect(ctx context.Context, p task.Payload) (_ task.Payload, release func(), err error) {
	if p.Ref == nil {
		return p, func() {}, nil
	}
	var out task.Payload
	if release, err = d.fetch(ctx, *p.Ref, &out); err != nil {
		return p, nil, fmt.Errorf("collect payload: %w", err)
	}
	if out.Ref != nil || out.Size() == 0 {
		release()
		return p, nil, fmt.Errorf("collect payload: %w", ErrContent)
	}
	return out, release, nil
}

// fetch reads a blob into v, within the room that there is.
func (d *Desk) fetch(ctx context.Context, ref task.Ref, v any) (release func(), err error) {
	if d.store == nil {
		return nil, ErrNoStore
	}
	if ref.Bytes < 0 || ref.Bytes > d.p.Limit {
		return nil, fmt.Errorf("%w of blob_max_bytes here (%d)", blob.ErrTooLarge, d.p.Limit)
	}
	ctx, cancel := context.WithTimeout(ctx, d.p.Wait)
	defer cancel()
	if err := d.room.Acquire(ctx, ref.Bytes); err != nil {
		return nil, fmt.Errorf("wait for room: %w", err)
	}
	var content []byte
	err = d.ask(ctx, func() (err error) {
		content, err = d.store.Bytes(ctx, ref, d.p.Limit)
		return err
	})
	if err == nil {
		if bad := json.Unmarshal(content, v); bad != nil {
			err = ErrContent // what it is instead may not be shown
		}
	}
	if err != nil {
		d.room.Release(ref.Bytes)
		return nil, err
	}
	return func() { d.room.Release(ref.Bytes) }, nil
}
