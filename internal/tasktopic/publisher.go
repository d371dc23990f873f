// Package tasktopic is the only writer of Penstock's topics: it encodes a
// record, places it, and answers only for what the brokers acknowledged.
//
// Delivery promise: a nil error means that every in-sync replica has the
// record. ErrFull and ErrTooLarge mean that it was certainly not written. Any
// other error wraps ErrUnknown: it may have been written, and writing it again
// is safe, because readers take the first record of a task and ignore the rest.
package tasktopic

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/telemetry"
	"github.com/penstock/penstock/schema/conversation"
	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/webhook"
	"github.com/penstock/penstock/schema/wire"
)

// Errors of a produce.
var (
	ErrFull     = errors.New("produce buffer is full")
	ErrTooLarge = errors.New("record is larger than the topic takes")
	ErrUnknown  = errors.New("outcome of the produce is unknown")
)

// Ack says where a record lies.
type Ack struct {
	Topic     string
	Partition int32
	Offset    int64
	Timestamp time.Time // as the client set it
}

// Params are the developer's choices.
type Params struct {
	ResultsPartitions int32         // as the cluster has them, of webhooks and conversations too; fixed for life
	Wait              time.Duration // the longest a synchronous produce waits; default DeliveryTimeout

	// NowFunc is the machine's clock, for tests of one that is wrong; default
	// time.Now. Its times must bear a monotonic reading.
	NowFunc func() time.Time
}

// Publisher writes records. It is safe for concurrent use, and does not own
// the client.
type Publisher struct {
	cl    *kgo.Client
	p     Params
	clock *Clock
}

// NewPublisher returns a publisher on a client made with
// kafkaclient.ProducerOpts.
func NewPublisher(cl *kgo.Client, p Params) *Publisher {
	if p.Wait == 0 {
		p.Wait = kafkaclient.DeliveryTimeout
	}
	if p.NowFunc == nil {
		p.NowFunc = time.Now
	}
	return &Publisher{cl: cl, p: p, clock: &Clock{local: p.NowFunc}}
}

// Task publishes an accepted task for the first time.
func (p *Publisher) Task(ctx context.Context, t *task.Task, pool string, pr task.Progress) (Ack, error) {
	rec, err := wire.EncodeTask(t, pr, telemetry.TraceParent(ctx))
	if err != nil {
		return Ack{}, err
	}
	return p.produce(ctx, record(rec, topic.Tasks(pool, t.Class)))
}

// TaskAsync is Task for the hot path; see TerminalAsync. Tasks of one key are
// written in the order of the calls.
func (p *Publisher) TaskAsync(ctx context.Context, t *task.Task, pool string, pr task.Progress, done func(Ack, error)) {
	rec, err := wire.EncodeTask(t, pr, telemetry.TraceParent(ctx))
	if err != nil {
		done(Ack{}, err)
		return
	}
	p.produceAsync(record(rec, topic.Tasks(pool, t.Class)), done)
}

// Republish writes the same key and value again with new progress: to a retry
// tier, back to a tasks topic, or on a redrive.
func (p *Publisher) Republish(ctx context.Context, rec wire.Record, t *task.Task, to string, pr task.Progress) (Ack, error) {
	out, err := republished(rec, t, pr)
	if err != nil {
		return Ack{}, err
	}
	return p.produce(ctx, record(out, to))
}

// RepublishAsync is Republish for the hot path; see TerminalAsync.
func (p *Publisher) RepublishAsync(rec wire.Record, t *task.Task, to string, pr task.Progress, done func(Ack, error)) {
	out, err := republished(rec, t, pr)
	if err != nil {
		done(Ack{}, err)
		return
	}
	p.produceAsync(record(out, to), done)
}

// republished keeps the trace that the record travels under.
func republished(rec wire.Record, t *task.Task, pr task.Progress) (wire.Record, error) {
	traceparent, _ := rec.Get(wire.HeaderTraceparent)
	return wire.Republish(rec, t, pr, traceparent)
}

// Terminal publishes a record of penstock.results in the task's partition.
func (p *Publisher) Terminal(ctx context.Context, t *terminal.Terminal) (Ack, error) {
	rec, err := p.terminal(t, telemetry.TraceParent(ctx))
	if err != nil {
		return Ack{}, err
	}
	return p.produce(ctx, rec)
}

// TerminalAsync is Terminal for the hot path: done is called once, possibly
// before TerminalAsync returns, from the client's goroutine. It must not block.
func (p *Publisher) TerminalAsync(t *terminal.Terminal, done func(Ack, error)) {
	rec, err := p.terminal(t, "")
	if err != nil {
		done(Ack{}, err)
		return
	}
	p.produceAsync(rec, done)
}

func (p *Publisher) terminal(t *terminal.Terminal, traceparent string) (*kgo.Record, error) {
	out, err := wire.EncodeTerminal(t, traceparent)
	if err != nil {
		return nil, err
	}
	return p.placed(record(out, topic.Results))
}

// placed puts a record where all of its kind and key are.
func (p *Publisher) placed(rec *kgo.Record) (*kgo.Record, error) {
	if p.p.ResultsPartitions < 1 {
		return nil, errors.New("publisher does not know the partition count of " + rec.Topic)
	}
	kafkaclient.PinPartition(rec, topic.PartitionOf(rec.Key, p.p.ResultsPartitions))
	return rec, nil
}

// Webhook publishes a step of a webhook, in the partition of the number that the
// results of its task have; a batch is placed by the same rule.
func (p *Publisher) Webhook(ctx context.Context, w *webhook.Record) (Ack, error) {
	rec, err := p.webhook(w, telemetry.TraceParent(ctx))
	if err != nil {
		return Ack{}, err
	}
	return p.produce(ctx, rec)
}

// WebhookAsync is Webhook for many at once; see TerminalAsync.
func (p *Publisher) WebhookAsync(w *webhook.Record, done func(Ack, error)) {
	rec, err := p.webhook(w, "")
	if err != nil {
		done(Ack{}, err)
		return
	}
	p.produceAsync(rec, done)
}

func (p *Publisher) webhook(w *webhook.Record, traceparent string) (*kgo.Record, error) {
	out, err := wire.EncodeWebhook(w, traceparent)
	if err != nil {
		return nil, err
	}
	return p.placed(record(out, topic.Webhooks))
}

// Conversation publishes what a session remembers, or the request of a stored
// response.
func (p *Publisher) Conversation(ctx context.Context, c *conversation.Record) (Ack, error) {
	out, err := wire.EncodeConversation(c, telemetry.TraceParent(ctx))
	if err != nil {
		return Ack{}, err
	}
	rec, err := p.placed(record(out, topic.Conversations))
	if err != nil {
		return Ack{}, err
	}
	return p.produce(ctx, rec)
}

// DeadLetter publishes a record we gave up on, with its lineage.
func (p *Publisher) DeadLetter(ctx context.Context, original wire.Record, l deadletter.Letter) (Ack, error) {
	out, err := wire.EncodeDeadLetter(original, l)
	if err != nil {
		return Ack{}, err
	}
	return p.produce(ctx, record(out, topic.DeadLetters))
}

// Control publishes a record of an operator's job.
func (p *Publisher) Control(ctx context.Context, key string, value []byte) (Ack, error) {
	return p.produce(ctx, record(wire.Control(key, value, p.BrokerNow()), topic.Control))
}

// produce writes one record and waits for its acknowledgement. The wait does
// not end with ctx: a record given to Kafka is not taken back because a caller
// hung up, and its outcome would be unknown.
func (p *Publisher) produce(ctx context.Context, rec *kgo.Record) (Ack, error) {
	type result struct {
		ack Ack
		err error
	}
	done := make(chan result, 1) // one answer, whether or not anybody still waits
	p.produceAsync(rec, func(a Ack, err error) { done <- result{a, err} })
	timer := time.NewTimer(p.p.Wait)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.ack, r.err
	case <-timer.C:
		return Ack{}, fmt.Errorf("produce to %s: no acknowledgement within %s: %w", rec.Topic, p.p.Wait, ErrUnknown)
	}
}

func (p *Publisher) produceAsync(rec *kgo.Record, done func(Ack, error)) {
	p.cl.TryProduce(context.Background(), rec, func(r *kgo.Record, err error) {
		if err != nil {
			done(Ack{}, classify(rec.Topic, err))
			return
		}
		done(Ack{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp}, nil)
	})
}

func classify(to string, err error) error {
	switch {
	case errors.Is(err, kgo.ErrMaxBuffered):
		return fmt.Errorf("produce to %s: %w", to, ErrFull)
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		return fmt.Errorf("produce to %s: %w", to, ErrTooLarge)
	default:
		return fmt.Errorf("produce to %s: %w: %w", to, ErrUnknown, err)
	}
}

func record(r wire.Record, to string) *kgo.Record {
	headers := make([]kgo.RecordHeader, len(r.Headers))
	for i, h := range r.Headers {
		headers[i] = kgo.RecordHeader{Key: h.Key, Value: h.Value}
	}
	return &kgo.Record{Topic: to, Key: r.Key, Value: r.Value, Headers: headers}
}

// FromKgo returns the contract's view of a consumed record. It shares the
// record's bytes.
func FromKgo(r *kgo.Record) wire.Record {
	headers := make([]wire.Header, len(r.Headers))
	for i, h := range r.Headers {
		headers[i] = wire.Header{Key: h.Key, Value: h.Value}
	}
	return wire.Record{Key: r.Key, Value: r.Value, Headers: headers}
}
