package wire_test

import (
	"errors"
	"testing"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/webhook"
	"github.com/penstock/penstock/schema/wire"
)

func TestAWebhookThatDoesNotTellItsStepIsRefused(t *testing.T) {
	for name, spoil := range map[string]struct {
		of    string
		apply func(*webhook.Record)
	}{
		"another version":                 {"webhook-ended", func(w *webhook.Record) { w.SchemaVersion = 2 }},
		"another task than its key":       {"webhook-ended", func(w *webhook.Record) { w.TaskID = "task_other" }},
		"a task that is a batch":          {"webhook-announced", func(w *webhook.Record) { w.TaskID = "task_other" }},
		"an announced task":               {"webhook-announced", func(w *webhook.Record) { w.TaskID, w.BatchID = task.ID(w.BatchID), "" }},
		"an announcement to nobody":       {"webhook-announced", func(w *webhook.Record) { w.Webhook = nil }},
		"an announcement of nothing":      {"webhook-announced", func(w *webhook.Record) { w.Event = nil }},
		"an unknown step":                 {"webhook-ended", func(w *webhook.Record) { w.Step = "begun" }},
		"a registration without webhook":  {"webhook-registered", func(w *webhook.Record) { w.Webhook = nil }},
		"a registration without a URL":    {"webhook-registered", func(w *webhook.Record) { w.Webhook = &task.Webhook{} }},
		"an end that ends nothing":        {"webhook-ended", func(w *webhook.Record) { w.Status = task.Running }},
		"a reopening of what is open":     {"webhook-reopened", func(w *webhook.Record) { w.Generation = 0 }},
		"an attempt without itself":       {"webhook-attempted", func(w *webhook.Record) { w.Attempt = nil }},
		"an attempt without its number":   {"webhook-attempted", func(w *webhook.Record) { w.Attempt.N = 0 }},
		"one that is settled and pending": {"webhook-settled", func(w *webhook.Record) { w.State = webhook.Pending }},
		"one that is settled as nothing":  {"webhook-settled", func(w *webhook.Record) { w.State = "" }},
	} {
		t.Run(name, func(t *testing.T) {
			w := hooks(t)[spoil.of]
			key := []byte(w.Subject())
			spoil.apply(w)
			r, err := wire.EncodeWebhook(w, "")
			if err != nil {
				t.Fatal(err)
			}
			r.Key = key
			if got, err := wire.DecodeWebhook(r); !errors.Is(err, wire.ErrRecord) {
				t.Errorf("read as %+v, %v", got, err)
			}
		})
	}
	if _, err := wire.DecodeWebhook(wire.Record{Value: []byte("no JSON")}); !errors.Is(err, wire.ErrRecord) {
		t.Errorf("no JSON: %v", err)
	}
}
