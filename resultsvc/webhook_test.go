package resultsvc_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/callback"
	"github.com/penstock/penstock/resultsvc"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/webhook"
)

func TestAWebhookIsCalledAndItsLogCanBeRead(t *testing.T) {
	var verifier *callback.Verifier
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || verifier.Verify(r.Header, body) != nil {
			t.Errorf("a call that nobody should believe: %s", body)
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	defer receiver.Close()
	b := setup(t, func(c *resultsvc.Config) {
		c.WebhookAllowPrivate, c.PublicURL = true, "https://api.example.com/"
		keys, err := c.WebhookKeys()
		if err != nil {
			t.Fatal(err)
		}
		if verifier, err = callback.NewVerifier(keys.Secret("dev")); err != nil {
			t.Fatal(err)
		}
	})
	id, without := b.id(), b.id()
	if _, err := b.pub.Webhook(t.Context(), &webhook.Record{
		SchemaVersion: task.SchemaVersion, Step: webhook.Registered, TaskID: id, Tenant: "dev", At: time.Now(),
		Webhook: &task.Webhook{URL: receiver.URL},
	}); err != nil {
		t.Fatal(err)
	}
	for _, one := range []task.ID{id, without} {
		if _, err := b.pub.Terminal(t.Context(), b.ended(one, task.Succeeded, 0)); err != nil {
			t.Fatal(err)
		}
	}
	read := func(id task.ID) (l webhook.Log, status int) {
		status, _ = b.read("/v1/tasks/"+string(id)+"/webhook", &l)
		return l, status
	}
	b.waitFor(func() bool {
		l, status := read(id)
		return status == http.StatusOK && len(l.Deliveries) == 1 && l.Deliveries[0].State == webhook.Delivered
	})
	if l, _ := read(id); l.TaskID != id || l.Deliveries[0].Attempts[0].Status != http.StatusAccepted || l.Deliveries[0].ID != webhook.EventID(id, 0) {
		t.Errorf("log %+v", l)
	}
	t.Run("of a task without one it is empty", func(t *testing.T) {
		b.waitFor(func() bool { _, status := read(without); return status == http.StatusOK })
		if l, _ := read(without); len(l.Deliveries) != 0 || l.TaskID != without {
			t.Errorf("log %+v", l)
		}
	})
	t.Run("of a task of somebody else there is none", func(t *testing.T) {
		for _, foreign := range []task.ID{b.minter.New("other", time.Now()), "task_invented"} {
			status, envelope := b.read("/v1/tasks/"+string(foreign)+"/webhook", nil)
			if status != http.StatusNotFound || envelope.Error.Type != fault.NotFound {
				t.Errorf("%s: %d %+v", foreign, status, envelope)
			}
		}
	})
	t.Run("of one whose time is over it is gone", func(t *testing.T) {
		status, _ := b.read("/v1/tasks/"+string(b.minter.New("dev", time.Now().Add(-1000*time.Hour)))+"/webhook", nil)
		if status != http.StatusGone {
			t.Errorf("%d", status)
		}
	})
	t.Run("without Redis it is not told now", func(t *testing.T) {
		b.redis.Close()
		status, envelope := b.read("/v1/tasks/"+string(id)+"/webhook", nil)
		if status != http.StatusServiceUnavailable || envelope.Error.Type != fault.Unavailable {
			t.Errorf("%d %+v", status, envelope)
		}
	})
}
