package dev_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/cmd/penstock/dev"
	"github.com/penstock/penstock/schema/api"
)

// form is a multipart body: fields as name, value, and a file between them.
func form(t *testing.T, content string, fields ...string) (body, mediaType string) {
	t.Helper()
	var out bytes.Buffer
	w := multipart.NewWriter(&out)
	part, err := w.CreateFormFile("file", "requests.jsonl")
	if err == nil {
		_, err = part.Write([]byte(content))
	}
	for i := 0; i < len(fields) && err == nil; i += 2 {
		err = w.WriteField(fields[i], fields[i+1])
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), w.FormDataContentType()
}

// requests is a file of n lines for one endpoint of the simulated engine.
func requests(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"custom_id":"c-%d","method":"POST","url":"/v1/completions","body":{"model":"sim-chat","prompt":"line %d","max_tokens":2}}`+"\n", i, i)
	}
	return b.String()
}

// bulk uses the routes of files and batches.
func (k *contract) bulk(t *testing.T, s *dev.Stack) {
	t.Helper()
	ask := func(want int, method, route, path, body string, headers ...string) []byte {
		t.Helper()
		status, _, text := k.ask(t, s, method, route, path, body, headers...)
		if status != want {
			t.Fatalf("%s %s: %d; want %d: %.300s", method, path, status, want, text)
		}
		return text
	}
	const files, file, batches, batch = "/v1/files", "/v1/files/{id}", "/v1/batches", "/v1/batches/{id}"
	send := func(want int, content string, fields ...string) string {
		t.Helper()
		body, mediaType := form(t, content, fields...)
		return idOf(t, ask(want, "POST", files, files, body, "Content-Type", mediaType))
	}
	kept := send(200, "anything", "purpose", "user_data", "expires_after[anchor]", "created_at", "expires_after[seconds]", "3600")
	send(400, "anything", "purpose", "nonsense")
	send(400, "anything", "purpose", "batch", "expires_after[anchor]", "created_at", "expires_after[seconds]", "1")
	ask(400, "POST", files, files, `{}`)
	ask(200, "GET", file, files+"/"+kept, "")
	if got := ask(200, "GET", file+"/content", files+"/"+kept+"/content", ""); string(got) != "anything" {
		t.Errorf("the content is %q", got)
	}
	ask(200, "DELETE", file, files+"/"+kept, "")
	for _, path := range []string{"/" + kept, "/file-invented"} {
		ask(404, "GET", file, files+path, "")
		ask(404, "GET", file+"/content", files+path+"/content", "")
		ask(404, "DELETE", file, files+path, "")
	}

	input := send(200, requests(40), "purpose", "batch")
	order := `{"input_file_id":"` + input + `","endpoint":"/v1/completions","completion_window":"1h","metadata":{"night":"17"}}`
	id := idOf(t, ask(200, "POST", batches, batches, order))
	if again := idOf(t, ask(200, "POST", batches, batches, order, "X-Stainless-Retry-Count", "1")); again != id {
		t.Error("a retry made another batch")
	}
	ask(400, "POST", batches, batches, strings.Replace(order, "1h", "soon", 1))
	ask(400, "POST", batches, batches, strings.Replace(order, input, "file-invented", 1))
	ended := awaitBatch(t, s, id)
	if ended.Status != "completed" || ended.RequestCounts != (api.BulkCounts{Total: 40, Completed: 40}) || ended.OutputFileID == nil || ended.ErrorFileID != nil {
		t.Errorf("the batch is %+v", ended)
	}
	output := ask(200, "GET", file+"/content", files+"/"+*ended.OutputFileID+"/content", "")
	if lines := linesOf(t, output); len(lines) != 40 || lines["c-7"].Response.Body.Object != "text_completion" {
		t.Errorf("%d lines: %.300s", len(lines), output)
	}
	ask(200, "GET", batch, batches+"/"+id, "")
	ask(404, "GET", batch, batches+"/batch_invented", "")
	ask(409, "POST", batch+"/cancel", batches+"/"+id+"/cancel", "")
	ask(404, "POST", batch+"/cancel", batches+"/batch_invented/cancel", "")
	ask(200, "GET", batch+"/webhook", batches+"/"+id+"/webhook", "")
	ask(404, "GET", batch+"/webhook", batches+"/batch_invented/webhook", "")

	wrong := idOf(t, ask(200, "POST", batches, batches, strings.Replace(order, input, send(200, "nonsense", "purpose", "batch"), 1)))
	if got := awaitBatch(t, s, wrong); got.Status != "failed" || got.Errors == nil || *got.Errors.Data[0].Line != 1 {
		t.Errorf("a file of nonsense: %+v", got)
	}
	switchFault(t, s, http.MethodPost, `{"match":"line","action":"hang"}`)
	slow := send(200, requests(3), "purpose", "batch")
	stopped := idOf(t, ask(200, "POST", batches, batches, strings.Replace(order, input, slow, 1)))
	ask(409, "DELETE", file, files+"/"+slow, "")
	ask(200, "POST", batch+"/cancel", batches+"/"+stopped+"/cancel", "")
	if got := awaitBatch(t, s, stopped); got.Status != "cancelled" || got.CancelledAt == nil {
		t.Errorf("a cancelled batch: %+v", got)
	}
	switchFault(t, s, http.MethodDelete, "")
	ask(200, "GET", batches, batches+"?limit=2", "")
	ask(400, "GET", batches, batches+"?limit=0", "")
	ask(200, "GET", files, files+"?purpose=batch_output&order=asc", "")
	ask(400, "GET", files, files+"?order=up", "")
}

// TestABatchSurvivesARestartOfEverything ends the process in the midst of a batch,
// Redis and all, and starts it over its log and its blobs.
func TestABatchSurvivesARestartOfEverything(t *testing.T) {
	const n = 2000
	cfg := dev.DefaultConfig()
	cfg.DataDir = t.TempDir()
	_, s, stop := run(t, cfg)
	body, mediaType := form(t, requests(n), "purpose", "batch")
	input := made(t, s, "/v1/files", mediaType, body)
	id := made(t, s, "/v1/batches", "application/json", `{"input_file_id":"`+input+`","endpoint":"/v1/completions","completion_window":"1h"}`)
	var b api.Bulk
	for range 600 {
		if err := json.Unmarshal(get(t, s.URL()+"/v1/batches/"+id), &b); err != nil {
			t.Fatal(err)
		}
		if b.RequestCounts.Completed > 0 {
			break
		}
		<-time.After(20 * time.Millisecond)
	}
	if b.Status != "in_progress" || b.RequestCounts.Completed == 0 {
		t.Fatalf("the batch is %+v; want it half done", b)
	}
	before := executions(t, s).Total
	stop()
	_, s, _ = run(t, cfg)
	b = awaitBatch(t, s, id)
	if b.Status != "completed" || b.RequestCounts != (api.BulkCounts{Total: n, Completed: n}) {
		t.Errorf("the batch is %+v", b)
	}
	if lines := linesOf(t, get(t, s.URL()+"/v1/files/"+*b.OutputFileID+"/content")); len(lines) != n {
		t.Errorf("%d lines; want %d", len(lines), n)
	}
	if again := before + executions(t, s).Total - n; again > 300 {
		t.Errorf("%d tasks ran again; want no more than were in flight", again)
	}
}

// made posts to a route that answers with what it has made, and returns its id.
func made(t *testing.T, s *dev.Stack, path, mediaType, body string) string {
	t.Helper()
	res, err := post(t.Context(), t, s, path, body, "Content-Type", mediaType)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var out bytes.Buffer
	if _, err := out.ReadFrom(res.Body); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("POST %s: %d, %v: %.300s", path, res.StatusCode, err, out.Bytes())
	}
	return idOf(t, out.Bytes())
}

func idOf(t *testing.T, body []byte) string {
	t.Helper()
	var one struct{ ID string }
	if err := json.Unmarshal(body, &one); err != nil {
		t.Fatalf("%v in %.300s", err, body)
	}
	return one.ID
}

// resultLine is one line of an output file.
type resultLine struct {
	CustomID string `json:"custom_id"`
	Response struct {
		StatusCode int `json:"status_code"`
		Body       struct{ Object string }
	}
}

func linesOf(t *testing.T, content []byte) map[string]resultLine {
	t.Helper()
	out := map[string]resultLine{}
	for text := range bytes.Lines(content) {
		var l resultLine
		if err := json.Unmarshal(text, &l); err != nil {
			t.Fatalf("%v in %.300s", err, text)
		}
		if _, twice := out[l.CustomID]; twice {
			t.Errorf("%s has two lines", l.CustomID)
		}
		out[l.CustomID] = l
	}
	return out
}

func get(t *testing.T, url string) []byte {
	t.Helper()
	res, err := http.Get(url) //nolint:noctx // of a server of the test's own
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(res.Body); err != nil {
		t.Fatal(err)
	}
	return body.Bytes()
}

// awaitBatch waits for a batch to end, as long as it gets on.
func awaitBatch(t *testing.T, s *dev.Stack, id string) api.Bulk {
	t.Helper()
	var last api.BulkCounts
	for waited := 0; waited < 1200; waited++ {
		var b api.Bulk
		if err := json.Unmarshal(get(t, s.URL()+"/v1/batches/"+id), &b); err != nil {
			t.Fatal(err)
		}
		switch b.Status {
		case "completed", "failed", "expired", "cancelled":
			return b
		}
		if b.RequestCounts != last {
			last, waited = b.RequestCounts, 0
		}
		<-time.After(50 * time.Millisecond)
	}
	t.Fatalf("the batch stands at %+v for a minute", last)
	return api.Bulk{}
}
