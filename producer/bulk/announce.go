package bulk

import (
	"context"
	"fmt"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/webhook"
)

// announce writes the end of a batch to penstock.webhooks if somebody wants to
// hear of it, and then that it did. Whoever takes over between the two writes it
// again, which its readers take for the same.
func (u *runner) announce() error {
	b, owed := u.d.ledger.owed(u.t)
	if !owed {
		return nil
	}
	told, err := announcement(b)
	if err != nil {
		return err
	}
	err = u.persist("announce end", func(ctx context.Context) error {
		told.At = u.d.p.Publisher.BrokerNow().UTC()
		_, err := u.d.p.Publisher.Webhook(ctx, told)
		return err
	})
	if err != nil {
		return err
	}
	return u.tell(entry{Type: entryTold})
}

// announcement is the record that tells of the end of a batch.
func announcement(b Batch) (*webhook.Record, error) {
	body, err := webhook.BatchBody(webhook.BatchData{
		ID: b.ID, Status: string(b.Status), Endpoint: b.Spec.Endpoint, InputFileID: b.Spec.Input, OutputFileID: b.Output, ErrorFileID: b.Errors,
		RequestCounts: webhook.BatchCounts{Total: b.Total, Completed: b.Counts.Completed, Failed: b.Counts.Ended() - b.Counts.Completed},
		Metadata:      b.Spec.Metadata,
	}, b.EndedAt)
	if err != nil {
		return nil, fmt.Errorf("announce end of batch %s: %w", b.ID, err)
	}
	return &webhook.Record{
		SchemaVersion: task.SchemaVersion, Step: webhook.Announced, BatchID: b.ID, Tenant: b.Spec.Tenant, Webhook: b.Spec.Webhook, Event: body,
	}, nil
}
