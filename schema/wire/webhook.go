package wire

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/webhook"
)

// EncodeWebhook writes a record of `penstock.webhooks`.
func EncodeWebhook(w *webhook.Record, traceparent string) (Record, error) {
	value, err := marshal(w)
	if err != nil {
		return Record{}, fmt.Errorf("encode webhook record: %w", err)
	}
	h := make(headerList, 0, 12)
	h.attributes(webhookID(w), TypeWebhook, "/penstock", w.Subject(), w.At)
	h.add(HeaderTenant, w.Tenant)
	h.add(HeaderGeneration, strconv.Itoa(int(w.Generation)))
	h.add(HeaderTraceparent, traceparent)
	return Record{Key: []byte(w.Subject()), Value: value, Headers: h}, nil
}

// webhookID names what a record tells, the same whoever tells it again.
func webhookID(w *webhook.Record) string {
	id := w.Subject() + "/" + string(w.Step) + "/" + strconv.Itoa(int(w.Generation))
	if w.Step == webhook.Attempted && w.Attempt != nil {
		id += "/" + strconv.Itoa(w.Attempt.N)
	}
	return id
}

// DecodeWebhook reads a record of `penstock.webhooks`.
func DecodeWebhook(r Record) (*webhook.Record, error) {
	value, err := dataOf(r)
	if err != nil {
		return nil, err
	}
	var w webhook.Record
	if err := json.Unmarshal(value, &w); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	switch {
	case w.SchemaVersion != task.SchemaVersion:
		return nil, fmt.Errorf("%w: schema version %d, want %d", ErrRecord, w.SchemaVersion, task.SchemaVersion)
	case w.TaskID != "" && w.BatchID != "":
		return nil, fmt.Errorf("%w: has both task_id and batch_id", ErrRecord)
	case string(r.Key) != w.Subject():
		return nil, fmt.Errorf("%w: key and id differ", ErrRecord)
	case !complete(&w):
		return nil, fmt.Errorf("%w: step %q lacks what it should tell", ErrRecord, w.Step)
	}
	return &w, nil
}

// complete reports whether a record tells what its step must.
func complete(w *webhook.Record) bool {
	switch w.Step {
	case webhook.Registered:
		return w.Webhook != nil && w.Webhook.URL != ""
	case webhook.Announced:
		return w.BatchID != "" && w.Webhook != nil && w.Webhook.URL != "" && w.Kind() != ""
	case webhook.Ended:
		return w.Status.Terminal()
	case webhook.Reopened:
		return w.Generation > 0
	case webhook.Attempted:
		return w.Attempt != nil && w.Attempt.N > 0
	case webhook.Settled:
		return w.State != webhook.Pending && slices.Contains(webhook.States(), w.State)
	}
	return false
}
