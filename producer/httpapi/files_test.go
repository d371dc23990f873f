package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/producer/bulk"
	"github.com/penstock/penstock/producer/cancel"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/webhook"
	"github.com/penstock/penstock/schema/wire"
)

// jobs is a penstock.control in memory, with a pipeline that takes nothing.
type jobs struct {
	*world
	control chan tasktopic.Read
	offset  int64
	polled  bool
}

func (j *jobs) Control(_ context.Context, key string, value []byte) (tasktopic.Ack, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	at := j.offset
	j.offset++
	j.control <- tasktopic.Read{Topic: topic.Control, Offset: at, Time: time.Now(), Record: wire.Control(key, value, time.Now())}
	return tasktopic.Ack{Offset: at}, nil
}

func (j *jobs) Webhook(_ context.Context, w *webhook.Record) (tasktopic.Ack, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.told = append(j.told, w)
	return tasktopic.Ack{}, nil
}

func (j *jobs) Poll(ctx context.Context) ([]tasktopic.Read, bool, error) {
	if !j.polled {
		j.polled = true
		return nil, true, nil
	}
	select {
	case r := <-j.control:
		return []tasktopic.Read{r}, true, nil
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
}

func (*jobs) Check(ingest.Submission) error { return nil }

func (*jobs) AcceptAll(context.Context, int, func(int) (ingest.Submission, error)) []ingest.Result {
	return nil
}

func (*jobs) Cancel(context.Context, string, task.ID) (cancel.Outcome, error) {
	return cancel.Outcome{}, nil
}

// noDialect serves one endpoint, and takes no request.
type noDialect struct{}

func (noDialect) Serves(endpoint string) bool { return endpoint == "/v1/embeddings" }

func (noDialect) Request(string, []byte) (ingest.Submission, bulk.AnswerFunc, error) {
	return ingest.Submission{}, nil, errors.New("none")
}

func (noDialect) Refusal(string, error) bulk.Answer { return bulk.Answer{} }

const maxTestFile = 1 << 20

// openDesk runs a desk over a directory, or without a store, until the test ends.
func openDesk(tb testing.TB, w *world, dir string) *bulk.Desk {
	tb.Helper()
	j := &jobs{world: w, control: make(chan tasktopic.Read, 1000)} // more than any test writes
	p := bulk.Params{
		Source: j, Publisher: j, Intake: j, Waiter: w, Results: &w.results, Cancels: j, Dialect: noDialect{},
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Owner: "test", MaxTaskAge: time.Hour,
		MaxFile: maxTestFile, MaxLine: 1024, FileLife: 24 * time.Hour, Window: 1, Batches: 1,
	}
	if dir != "" {
		c := blob.DefaultConfig()
		c.URL = (&url.URL{Scheme: "file", Path: filepath.ToSlash(dir)}).String()
		store, err := blob.New(c, blob.Params{Service: "test", Registry: prometheus.NewRegistry()})
		if err != nil {
			tb.Fatal(err)
		}
		p.Blobs = store
	}
	d, err := bulk.New(p)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { d.Run(ctx) })
	tb.Cleanup(func() { stop(); running.Wait() })
	return d
}

// formOf is a form of parts: a name that begins with @ is a file's.
func formOf(t *testing.T, parts ...string) (io.Reader, string) {
	t.Helper()
	var out bytes.Buffer
	w := multipart.NewWriter(&out)
	for i := 0; i < len(parts); i += 2 {
		var err error
		if name, isFile := strings.CutPrefix(parts[i], "@"); isFile {
			var part io.Writer
			if part, err = w.CreateFormFile("file", name); err == nil {
				_, err = io.WriteString(part, parts[i+1])
			}
		} else {
			err = w.WriteField(parts[i], parts[i+1])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &out, w.FormDataContentType()
}

func (b *bundle) sendFile(t *testing.T, parts ...string) *httptest.ResponseRecorder {
	t.Helper()
	body, mediaType := formOf(t, parts...)
	return b.call(http.MethodPost, "/v1/files", body, "Content-Type", mediaType)
}

func bodyOf[T any](t *testing.T, w *httptest.ResponseRecorder) (out T) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
		t.Fatalf("%v in %s", err, w.Body)
	}
	return out
}

type openAIError struct {
	Error struct {
		Message, Type string
		Param, Code   *string
	}
}

func TestAFileComesBackWhicheverWayItsFormIsOrdered(t *testing.T) {
	b := setup(t, admit.Params{})
	for name, parts := range map[string][]string{
		"fields first": {"purpose", "batch", "@a.jsonl", "content"},
		"file first":   {"@a.jsonl", "content", "purpose", "batch"},
		"with more":    {"@a.jsonl", "content", "purpose", "batch", "unknown", "x", "expires_after[anchor]", "created_at", "expires_after[seconds]", "3600"},
	} {
		t.Run(name, func(t *testing.T) {
			w := b.sendFile(t, parts...)
			f := bodyOf[api.File](t, w)
			if w.Code != 200 || f.Object != "file" || f.Bytes != 7 || f.Filename != "a.jsonl" || f.Purpose != "batch" || f.Status != "processed" {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			if life := f.ExpiresAt - f.CreatedAt; name == "with more" && life != 3600 || name != "with more" && life != 24*3600 {
				t.Errorf("it lives %d s", life)
			}
			content := b.call(http.MethodGet, "/v1/files/"+f.ID+"/content", nil)
			if content.Code != 200 || content.Body.String() != "content" || content.Header().Get("Content-Length") != "7" ||
				!strings.Contains(content.Header().Get("Content-Disposition"), "a.jsonl") {
				t.Errorf("%d %q %v", content.Code, content.Body, content.Header())
			}
			if w := b.call(http.MethodGet, "/v1/files/"+f.ID, nil, "Authorization", "Bearer other"); w.Code != 404 {
				t.Errorf("another tenant is answered %d", w.Code)
			}
		})
	}
}

func TestAFormAtFaultKeepsNothing(t *testing.T) {
	b := setup(t, admit.Params{})
	for name, c := range map[string]struct {
		parts  []string
		status int
		param  string
	}{
		"no file":             {[]string{"purpose", "batch"}, 400, "file"},
		"no purpose":          {[]string{"@a", "x"}, 400, "purpose"},
		"an unknown purpose":  {[]string{"@a", "x", "purpose", "batch_output"}, 400, "purpose"},
		"two files":           {[]string{"@a", "x", "@b", "y", "purpose", "batch"}, 400, "file"},
		"a name with a break": {[]string{"@a\tb", "x", "purpose", "batch"}, 400, "file"},
		"an hour too short":   {[]string{"@a", "x", "purpose", "batch", "expires_after[anchor]", "created_at", "expires_after[seconds]", "60"}, 400, "expires_after.seconds"},
		"another anchor":      {[]string{"@a", "x", "purpose", "batch", "expires_after[anchor]", "now", "expires_after[seconds]", "3600"}, 400, "expires_after.anchor"},
		"no number":           {[]string{"@a", "x", "purpose", "batch", "expires_after[anchor]", "created_at", "expires_after[seconds]", "soon"}, 400, "expires_after.seconds"},
		"a long field":        {[]string{"@a", "x", "purpose", strings.Repeat("x", 5000)}, 400, ""},
		"a file too large":    {[]string{"@a", strings.Repeat("x", maxTestFile+1), "purpose", "batch"}, 413, "file"},
		"a form too large":    {[]string{"@a", strings.Repeat("x", 4*maxTestFile), "purpose", "batch"}, 413, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := b.sendFile(t, c.parts...)
			e := bodyOf[openAIError](t, w)
			if w.Code != c.status || e.Error.Message == "" || c.param != "" && (e.Error.Param == nil || *e.Error.Param != c.param) {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
	if w := b.call(http.MethodPost, "/v1/files", strings.NewReader(`{}`)); w.Code != 400 {
		t.Errorf("no form at all: %d %s", w.Code, w.Body)
	}
	body, mediaType := formOf(t, "@a", "content", "purpose", "batch")
	whole, _ := io.ReadAll(body)
	if w := b.call(http.MethodPost, "/v1/files", bytes.NewReader(whole[:len(whole)-20]), "Content-Type", mediaType); w.Code != 400 {
		t.Errorf("a form that is cut: %d %s", w.Code, w.Body)
	}
	if list := bodyOf[api.FileList](t, b.call(http.MethodGet, "/v1/files", nil)); len(list.Data) > 0 {
		t.Errorf("files were made: %+v", list.Data)
	}
	if left, err := filepath.Glob(filepath.Join(b.blobs, "until-*", "*", "*")); err != nil || len(left) > 0 {
		t.Errorf("contents are left: %v, %v", left, err)
	}
}

func TestAFileThatIsDamagedIsNeverSentAsWhole(t *testing.T) {
	b := setup(t, admit.Params{})
	f := bodyOf[api.File](t, b.sendFile(t, "@a", strings.Repeat("x", maxTestFile), "purpose", "user_data"))
	stored, err := filepath.Glob(filepath.Join(b.blobs, "until-*", f.ID, "*"))
	if err != nil || len(stored) != 1 {
		t.Fatalf("%v, %v", stored, err)
	}
	server := httptest.NewServer(b.handler)
	defer server.Close()
	for name, damage := range map[string][]byte{
		"cut":     bytes.Repeat([]byte("x"), maxTestFile/2),
		"changed": append(bytes.Repeat([]byte("x"), maxTestFile-1), 'y'),
	} {
		if err := os.WriteFile(stored[0], damage, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, encoding := range []string{"identity", "gzip"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/v1/files/"+f.ID+"/content", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer acme")
			req.Header.Set("Accept-Encoding", encoding)
			res, err := server.Client().Do(req)
			if err != nil {
				continue // cut before its head: as good
			}
			n, err := io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			if err == nil {
				t.Errorf("%s, %s: %d bytes with a clean end", name, encoding, n)
			}
		}
	}
}

func TestWithoutAStoreFilesSayWhoCuresThat(t *testing.T) {
	b := setupOver(t, admit.Params{}, "")
	for _, path := range []string{"/v1/files", "/v1/files/file-x", "/v1/files/file-x/content", "/v1/batches", "/v1/batches/batch_x"} {
		w := b.call(http.MethodGet, path, nil)
		if e := bodyOf[openAIError](t, w); w.Code != 503 || !strings.Contains(e.Error.Message, "blob_url") || w.Header().Get("X-Should-Retry") != "false" {
			t.Errorf("%s: %d %s %v", path, w.Code, w.Body, w.Header())
		}
	}
	if w := b.sendFile(t, "@a", "x", "purpose", "batch"); w.Code != 503 {
		t.Errorf("a file: %d %s", w.Code, w.Body)
	}
}

func TestBatchesNeedTheirOwnScope(t *testing.T) {
	b := setup(t, admit.Params{})
	for _, c := range []struct{ method, path, scope string }{
		{"POST", "/v1/files", "read"},
		{"DELETE", "/v1/files/x", "read"},
		{"POST", "/v1/batches", "read"},
		{"POST", "/v1/batches/x/cancel", "read"},
		{"GET", "/v1/files", "submit"},
		{"GET", "/v1/files/x/content", "submit"},
		{"GET", "/v1/batches/x", "submit"},
	} {
		w := b.call(c.method, c.path, strings.NewReader("{}"), "Authorization", "Bearer acme:"+c.scope)
		if e := bodyOf[openAIError](t, w); w.Code != 403 || e.Error.Type != "permission_error" {
			t.Errorf("%s %s with %s: %d %s", c.method, c.path, c.scope, w.Code, w.Body)
		}
	}
	if w := b.call(http.MethodGet, "/v1/files", nil, "Authorization", ""); w.Code != 401 {
		t.Errorf("nobody is answered %d", w.Code)
	}
}
