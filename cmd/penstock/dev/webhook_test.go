package dev_test

import (
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/cmd/penstock/dev"
	"github.com/penstock/penstock/cmd/penstock/listen"
	"github.com/penstock/penstock/internal/callback"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/webhook"
)

// lines collects what a receiver prints.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestAWebhookIsToldAndVerified submits with a webhook at the receiver of
// `penstock webhook listen`, alone and in a batch.
func TestAWebhookIsToldAndVerified(t *testing.T) {
	_, s, _ := run(t, dev.DefaultConfig())
	cl, err := client.New(client.Config{API: s.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	secret, err := cl.WebhookSecret(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := callback.NewVerifier(config.Secret(secret))
	if err != nil {
		t.Fatal(err)
	}
	var out, errs lines
	receiver := httptest.NewServer(listen.Handler(listen.Params{Verifier: verifier, Out: &out, Err: &errs}))
	defer receiver.Close()
	r := api.SubmitRequest{Model: "sim-chat", Payload: task.Payload{Text: "hello"}, Webhook: &task.Webhook{URL: receiver.URL}}
	one, err := cl.Submit(t.Context(), r, "")
	if err != nil {
		t.Fatal(err)
	}
	batch, err := cl.SubmitBatch(t.Context(), []api.SubmitRequest{r, r})
	if err != nil || batch.Accepted != 2 {
		t.Fatalf("%+v, %v", batch, err)
	}
	ids := []task.ID{one.TaskID, batch.Items[0].Accepted.TaskID, batch.Items[1].Accepted.TaskID}
	for _, id := range ids {
		var log webhook.Log
		for range 600 {
			if log, err = cl.Webhook(t.Context(), id); err == nil && len(log.Deliveries) == 1 && log.Deliveries[0].State == webhook.Delivered {
				break
			}
			<-time.After(50 * time.Millisecond)
		}
		if len(log.Deliveries) != 1 || log.Deliveries[0].State != webhook.Delivered || !strings.Contains(out.String(), string(id)) {
			t.Errorf("log %+v, %v; printed %s%s", log, err, out.String(), errs.String())
		}
	}
}
