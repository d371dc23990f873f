package taskstoretest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/schema/webhook"
)

func webhooks(t *testing.T, open Open) {
	b := setup(t, open, taskstore.Params{Partitions: only, TTL: time.Hour})
	id := b.id()
	at := func(offset int64, state webhook.State, next *time.Time) taskstore.WebhookLog {
		return taskstore.WebhookLog{Offset: offset, Log: webhook.Log{TaskID: id, Deliveries: []webhook.Delivery{{
			ID: "evt_1", Type: "task.dead", State: state, EndedAt: b.now, NextAt: next,
			Attempts: []webhook.Attempt{{N: 1, At: b.now, Outcome: webhook.Refused, Status: 500}},
		}}}}
	}
	read := func() (webhook.Log, bool) {
		t.Helper()
		l, complete, err := b.store.Webhook(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return l, complete
	}
	put := func(logs ...taskstore.WebhookLog) {
		t.Helper()
		if err := b.store.PutWebhooks(t.Context(), logs); err != nil {
			t.Fatal(err)
		}
	}
	if l, complete := read(); len(l.Deliveries) != 0 || complete || l.TaskID != id {
		t.Errorf("of an empty Redis: %+v, complete %t", l, complete)
	}
	next := b.now.Add(5 * time.Hour)
	put(at(7, webhook.Pending, &next))
	if ttl := b.rdb.TTL(t.Context(), rediskey.Webhook(0, id)).Val(); ttl < 5*time.Hour || ttl > 7*time.Hour {
		t.Errorf("kept for %s although the next attempt is in five hours", ttl)
	}
	put(at(9, webhook.Delivered, nil), at(8, webhook.Pending, &next)) // in the wrong order
	put(at(7, webhook.Pending, &next))
	l, complete := read()
	if diff := cmp.Diff(at(9, webhook.Delivered, nil).Log, l); diff != "" || !complete {
		t.Errorf("complete %t (-want +got)\n%s", complete, diff)
	}
	lost, err := b.store.WebhooksLost(t.Context(), []int32{0, 1})
	if err != nil || len(lost) != 2 {
		t.Errorf("lost %v, %v", lost, err)
	}
	if err := b.store.WebhooksRestored(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if lost, err = b.store.WebhooksLost(t.Context(), []int32{0, 1}); err != nil || len(lost) != 1 || lost[0] != 1 {
		t.Errorf("lost %v, %v", lost, err)
	}
	id = b.id()
	if l, complete := read(); len(l.Deliveries) != 0 || !complete {
		t.Errorf("of a task without a webhook: %+v, complete %t", l, complete)
	}
	batch := webhook.Log{BatchID: "batch_1", Deliveries: []webhook.Delivery{{ID: "evt_1_0", Type: "batch.completed", State: webhook.Delivered, EndedAt: b.now, Attempts: []webhook.Attempt{}}}}
	put(taskstore.WebhookLog{Offset: 11, Log: batch})
	got, complete, err := b.store.BatchWebhook(t.Context(), "batch_1")
	if diff := cmp.Diff(batch, got); diff != "" || !complete || err != nil {
		t.Errorf("of a batch: complete %t, %v (-want +got)\n%s", complete, err, diff)
	}
}
