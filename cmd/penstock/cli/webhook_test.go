package cli_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/webhook"
)

func TestTheLogOfAWebhookIsShownOfTasksAndBatches(t *testing.T) {
	mux := http.NewServeMux()
	show := func(path, kind string) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			now := time.Now()
			envelope(w, 200, webhook.Log{Deliveries: []webhook.Delivery{
				{Type: kind, State: webhook.Pending, Attempts: []webhook.Attempt{{N: 1, At: now, Outcome: webhook.Refused, Status: 503, Next: now.Add(5 * time.Second)}}},
			}})
		})
	}
	show("/v1/tasks/task_1/webhook", "task.succeeded")
	show("/v1/batches/batch_1/webhook", "batch.completed")
	mux.HandleFunc("GET /v1/batches/batch_2/webhook", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, 404, fault.NotFound, "no such batch; see GET /v1/batches")
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	at := map[string]string{"PENSTOCK_API": srv.URL}
	for id, want := range map[string]string{"task_1": "task.succeeded", "batch_1": "batch.completed"} {
		out, errs, code := run(t, "", at, "webhook", "log", id)
		if code != 0 || !strings.Contains(out, want) || !strings.Contains(out, "refused") || !strings.Contains(out, "503") {
			t.Errorf("%s: exit code %d, stderr %q\n%s", id, code, errs, out)
		}
	}
	if _, errs, code := run(t, "", at, "webhook", "log", "batch_2"); code == 0 || !strings.Contains(errs, "no such batch") {
		t.Errorf("an unknown batch: exit code %d, %q", code, errs)
	}
}
