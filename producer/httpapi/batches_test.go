package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/webhook"
)

// order makes a batch of a file without a request in order, so that it fails.
func (b *bundle) order(t *testing.T, hook string) (api.Bulk, int) {
	t.Helper()
	f := bodyOf[api.File](t, b.sendFile(t, "@a.jsonl", "no request", "purpose", "batch"))
	w := b.post("/v1/batches", fmt.Sprintf(`{"input_file_id":%q,"endpoint":"/v1/embeddings","completion_window":"1h","webhook":%s}`, f.ID, hook))
	return bodyOf[api.Bulk](t, w), w.Code
}

func TestABatchTakesAWebhookAndShowsItsLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, admit.Params{})
		order, status := b.order(t, `{"url":"https://example.com/hook","events":["batch.failed"]}`)
		if status != 200 {
			t.Fatalf("%d", status)
		}
		time.Sleep(time.Minute)
		b.mu.Lock()
		if len(b.told) != 1 || b.told[0].BatchID != order.ID || b.told[0].Tenant != "acme" || b.told[0].Kind() != "batch.failed" {
			t.Errorf("told %+v", b.told)
		}
		b.mu.Unlock()
		path := "/v1/batches/" + order.ID + "/webhook"
		if w := b.call(http.MethodGet, path, nil); w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("while logs are restored: %d %s", w.Code, w.Body)
		}
		b.hooksShown = true
		if log := dataOf[webhook.Log](t, b.call(http.MethodGet, path, nil)); log.BatchID != order.ID || len(log.Deliveries) != 1 {
			t.Errorf("log %+v", log)
		}
		if w := b.call(http.MethodGet, path, nil, "Authorization", "Bearer other"); w.Code != 404 {
			t.Errorf("another tenant: %d", w.Code)
		}
	})
}

func TestABatchWithoutAWebhookHasAnEmptyLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, admit.Params{})
		order, _ := b.order(t, "null")
		time.Sleep(time.Minute)
		w := b.call(http.MethodGet, "/v1/batches/"+order.ID+"/webhook", nil)
		if log := dataOf[webhook.Log](t, w); w.Code != 200 || log.Deliveries == nil || len(log.Deliveries) != 0 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

func TestAWebhookThatCannotBeCalledIsRefusedOnEachRoute(t *testing.T) {
	b := setup(t, admit.Params{})
	f := bodyOf[api.File](t, b.sendFile(t, "@a.jsonl", "x", "purpose", "batch"))
	const hook = `"webhook":{"url":"http://10.0.0.1/"}`
	for path, body := range map[string]string{
		"/v1/inference":        `{"model":"sim-chat","payload":{"text":"hi"},` + hook + `}`,
		"/api/forward":         `{"source":"web","payload":{"text":"hi"},` + hook + `}`,
		"/v1/chat/completions": `{"model":"sim-chat","messages":[{"role":"user","content":"hi"}],` + hook + `}`,
		"/v1/completions":      `{"model":"sim-chat","prompt":"hi",` + hook + `}`,
		"/v1/embeddings":       `{"model":"org/sim-embed","input":"hi",` + hook + `}`,
		"/v1/batches":          `{"input_file_id":"` + f.ID + `","endpoint":"/v1/embeddings","completion_window":"1h",` + hook + `}`,
	} {
		t.Run(path, func(t *testing.T) {
			w := b.post(path, body)
			e := bodyOf[struct{ Error struct{ Param string } }](t, w)
			if w.Code != 400 || e.Error.Param != "webhook.url" {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
	if len(b.tasks) != 0 {
		t.Errorf("%d tasks were accepted", len(b.tasks))
	}
}

func TestEachRouteGivesItsTaskTheWebhook(t *testing.T) {
	const hook = `"webhook":{"url":"https://example.com/hook","events":["task.failed"]}`
	for path, body := range map[string]string{
		"/v1/inference":        `{"model":"sim-chat","payload":{"text":"hi"},` + hook + `}`,
		"/api/forward":         `{"source":"web","payload":{"text":"hi"},` + hook + `}`,
		"/v1/chat/completions": `{"model":"sim-chat","messages":[{"role":"user","content":"hi"}],` + hook + `}`,
		"/v1/completions":      `{"model":"sim-chat","prompt":"hi",` + hook + `}`,
		"/v1/embeddings":       `{"model":"org/sim-embed","input":"hi",` + hook + `}`,
	} {
		t.Run(path, func(t *testing.T) {
			b := setup(t, admit.Params{})
			b.winner = succeededAs(&task.Output{Text: "hi", FinishReason: "stop", Embeddings: json.RawMessage(`[[1]]`)})
			w := b.post(path, body)
			if w.Code/100 != 2 || len(b.tasks) != 1 || w.Header().Get("X-Penstock-Ignored") != "" {
				t.Fatalf("%d %s, ignored %q", w.Code, w.Body, w.Header().Get("X-Penstock-Ignored"))
			}
			if got := b.tasks[0].Webhook; got == nil || got.URL != "https://example.com/hook" || len(got.Events) != 1 || got.Form != "" {
				t.Errorf("webhook %+v", got)
			}
		})
	}
	b := setup(t, admit.Params{})
	if w := b.post("/v1/inference", `{"model":"sim-chat","payload":{"text":"hi"},"webhook":{"url":"https://example.com/hook","form":"response"}}`); w.Code != 400 {
		t.Errorf("a caller chose the form: %d", w.Code)
	}
}
