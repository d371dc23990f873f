package cli_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

func TestSessions(t *testing.T) {
	var submitted api.SubmitRequest
	var settings api.SessionSettings
	deleted := ""
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/inference", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewDecoder(r.Body).Decode(&submitted)
		envelope(w, 202, api.Accepted{TaskID: "task_1"})
	})
	mux.HandleFunc("POST /v1/sessions/{id}", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewDecoder(r.Body).Decode(&settings)
		envelope(w, 201, api.Session{SessionID: r.PathValue("id"), TTL: settings.TTL})
	})
	mux.HandleFunc("GET /v1/sessions/{id}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") != "chat/7" {
			refuse(w, 404, fault.NotFound, "no such session")
			return
		}
		envelope(w, 200, api.Session{SessionID: "chat/7", Turns: []api.Turn{{
			TaskID: "task_1", Status: task.Succeeded, Messages: json.RawMessage(`[{"role":"system"},{"role":"user","content":"Why?"}]`),
			Answer: json.RawMessage(`{"role":"assistant","content":"` + strings.Repeat("Because. ", 20) + `"}`),
		}}})
	})
	mux.HandleFunc("DELETE /v1/sessions/{id}", func(w http.ResponseWriter, r *http.Request) {
		deleted += r.PathValue("id") + " "
		w.WriteHeader(204)
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	at := map[string]string{"PENSTOCK_API": srv.URL}

	t.Run("a task is submitted to one", func(t *testing.T) {
		_, errs, code := run(t, "", at, "submit", "why?", "--session", "chat/7", "--memory")
		if code != 0 || submitted.SessionID != "chat/7" || !submitted.Memory {
			t.Errorf("exit %d, sent %+v, stderr %s", code, submitted, errs)
		}
	})
	t.Run("one is opened", func(t *testing.T) {
		out, errs, code := run(t, "", at, "session", "open", "chat/7", "--instructions", "be brief", "--ttl", "90m", "--max-tokens", "9")
		if code != 0 || settings.Instructions != "be brief" || settings.TTL != "1h30m0s" || settings.MaxTokens != 9 || !strings.Contains(out, "chat/7") {
			t.Errorf("exit %d, sent %+v, stdout %s, stderr %s", code, settings, out, errs)
		}
	})
	t.Run("one is shown, a turn a line", func(t *testing.T) {
		out, errs, code := run(t, "", at, "session", "show", "chat/7")
		if code != 0 || strings.Count(out, "\n") != 2 || !strings.Contains(out, "Why?") || !strings.Contains(out, "Because. Because.") || !strings.Contains(out, "…") {
			t.Errorf("exit %d, stdout %s, stderr %s", code, out, errs)
		}
	})
	t.Run("one that is not there is an error", func(t *testing.T) {
		if _, errs, code := run(t, "", at, "session", "show", "other"); code != 1 || !strings.Contains(errs, "no such session") {
			t.Errorf("exit %d, stderr %s", code, errs)
		}
	})
	t.Run("several are deleted", func(t *testing.T) {
		if _, errs, code := run(t, "", at, "session", "delete", "chat/7", "other"); code != 0 || deleted != "chat/7 other " {
			t.Errorf("exit %d, deleted %s, stderr %s", code, deleted, errs)
		}
	})
}
