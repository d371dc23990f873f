package bulk

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/penstock/penstock/internal/joblog"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/webhook"
)

// Order is what a client asks of a batch.
type Order struct {
	Input      string // id of the file
	Endpoint   string
	Window     string // "24h", or shorter
	Metadata   map[string]string
	Webhook    *task.Webhook // who is told of the end; nil: nobody
	OutputLife time.Duration // of the files it makes; 0: as long as files live here
	Key        string        // idempotency key; empty: every order is a batch of its own
	Repeat     bool          // the client says that it may have sent this before
}

// Bounds of an order.
const (
	minWindow   = time.Minute
	maxWindow   = 24 * time.Hour
	maxMetadata = 16  // members
	maxMetaName = 64  // bytes
	maxMeta     = 512 // bytes of a value
	// repeatFor is how long an order that says it is a repeat finds the first.
	repeatFor = 15 * time.Minute
	// readMargin is how long after its window a batch may still read its file.
	readMargin = 5 * time.Minute
)

// Create makes a batch. It is durable once this returned nil.
func (d *Desk) Create(ctx context.Context, tenant string, o Order) (Batch, error) {
	spec, err := d.spec(ctx, tenant, o)
	if err != nil {
		return Batch{}, err
	}
	if b, ok := d.repeated(spec, o.Repeat); ok {
		return b, nil
	}
	if _, open := d.ledger.held(tenant); open >= maxOpen {
		return Batch{}, &fault.Error{Code: fault.Throttled, RetryAfter: time.Minute, Message: fmt.Sprintf("%d batches are under way; wait for one to end", maxOpen)}
	}
	id := joblog.NewID(batchPrefix, d.p.Publisher.BrokerNow())
	if err := d.settle(ctx, entry{Type: entryCreated, ID: id, Spec: spec}); err != nil {
		return Batch{}, err
	}
	return d.FindBatch(ctx, tenant, id)
}

func (d *Desk) spec(ctx context.Context, tenant string, o Order) (*Spec, error) {
	if err := d.open(ctx); err != nil {
		return nil, err
	}
	if !d.p.Dialect.Serves(o.Endpoint) {
		return nil, invalid("endpoint", "batches are run for /v1/chat/completions, /v1/completions, /v1/embeddings and /v1/responses")
	}
	window, err := windowOf(o.Window)
	if err != nil {
		return nil, err
	}
	if err := checkMetadata(o.Metadata); err != nil {
		return nil, err
	}
	if o.Webhook != nil {
		if err := ingest.CheckWebhook(d.p.Webhooks, o.Webhook, webhook.BatchTypes()); err != nil {
			return nil, err
		}
	}
	life, err := d.life("output_expires_after", o.OutputLife)
	if err != nil {
		return nil, err
	}
	f, err := d.FindFile(ctx, tenant, o.Input)
	switch {
	case err != nil && fault.CodeOf(err) == fault.NotFound:
		return nil, invalid("input_file_id", "no such file; see GET /v1/files")
	case err != nil:
		return nil, err
	case f.Purpose != PurposeBatch:
		return nil, invalid("input_file_id", "the purpose of the file must be batch")
	}
	expires := d.p.Publisher.BrokerNow().UTC().Add(window)
	if f.ExpiresAt.Before(expires.Add(readMargin)) {
		return nil, invalid("input_file_id", "the file expires before the completion window ends")
	}
	return &Spec{
		Tenant: tenant, Endpoint: o.Endpoint, Input: f.ID, Content: f.Content, Window: o.Window,
		ExpiresAt: expires, Metadata: o.Metadata, OutputLife: life, Key: o.Key, Webhook: o.Webhook,
	}, nil
}

func windowOf(text string) (time.Duration, error) {
	window, err := time.ParseDuration(text)
	if err != nil || window < minWindow || window > maxWindow {
		return 0, invalid("completion_window", `must be "24h" or a shorter duration such as "1h" or "30m"`)
	}
	return window, nil
}

func checkMetadata(m map[string]string) error {
	if len(m) > maxMetadata {
		return invalid("metadata", fmt.Sprintf("may have %d members", maxMetadata))
	}
	for name, value := range m {
		if name == "" || len(name) > maxMetaName || len(value) > maxMeta {
			return invalid("metadata", fmt.Sprintf("names have 1 to %d bytes, values up to %d", maxMetaName, maxMeta))
		}
	}
	return nil
}

// repeated finds the batch that an order made before: by its key, or, for a
// client that says it repeats itself and sends no key, by what it orders.
func (d *Desk) repeated(s *Spec, repeat bool) (Batch, bool) {
	if s.Key != "" {
		return d.ledger.keyed(s.Tenant, s.Key)
	}
	if !repeat {
		return Batch{}, false
	}
	latest, _ := d.ledger.listBatches(s.Tenant, Page{Limit: maxOpen})
	for _, b := range latest {
		if d.p.Publisher.BrokerNow().Sub(b.CreatedAt) < repeatFor && b.Spec.Input == s.Input && b.Spec.Endpoint == s.Endpoint &&
			b.Spec.Window == s.Window && maps.Equal(b.Spec.Metadata, s.Metadata) && sameWebhook(b.Spec.Webhook, s.Webhook) {
			return b, true
		}
	}
	return Batch{}, false
}

func sameWebhook(a, b *task.Webhook) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.URL == b.URL && slices.Equal(a.Events, b.Events)
}

// FindBatch returns a tenant's batch. Errors: NotFound, Unavailable.
func (d *Desk) FindBatch(ctx context.Context, tenant, id string) (Batch, error) {
	return find(ctx, d, batchPrefix, id, func() (Batch, bool) { return d.ledger.batch(tenant, id) })
}

// Batches returns a page of a tenant's batches.
func (d *Desk) Batches(ctx context.Context, tenant string, p Page) (batches []Batch, more bool, err error) {
	if err := d.open(ctx); err != nil {
		return nil, false, err
	}
	batches, more = d.ledger.listBatches(tenant, p)
	return batches, more, nil
}

// ErrEnded is returned by Cancel for a batch that has ended otherwise.
type ErrEnded struct{ Status Status }

// Error says why there is nothing to stop.
func (e ErrEnded) Error() string {
	return "the batch is " + string(e.Status) + ": there is nothing to stop"
}

// Cancel stops a tenant's batch: no line is submitted any more, those that run
// are stopped, and what has ended is kept. Stopping it twice changes nothing.
func (d *Desk) Cancel(ctx context.Context, tenant, id string) (Batch, error) {
	b, err := d.FindBatch(ctx, tenant, id)
	switch {
	case err != nil:
		return Batch{}, err
	case b.Status == Cancelling || b.Status == Cancelled:
		return b, nil
	case b.Status.Ended() || b.Status == Finalizing:
		return Batch{}, ErrEnded{b.Status}
	}
	if err := d.settle(ctx, entry{Type: entryCancelled, ID: id}); err != nil {
		return Batch{}, err
	}
	return d.FindBatch(ctx, tenant, id)
}
