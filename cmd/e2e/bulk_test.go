//go:build e2e

package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/schema/api"
)

// TestABatchSurvivesItsOwner kills the producer that runs a batch like a lost
// machine, and has another take over. PENSTOCK_BATCH_LINES asks for another
// length: a file may have 50,000 lines, which takes minutes.
func TestABatchSurvivesItsOwner(t *testing.T) {
	lines := 5000
	if text := os.Getenv("PENSTOCK_BATCH_LINES"); text != "" {
		var err error
		if lines, err = strconv.Atoi(text); err != nil {
			t.Fatal("PENSTOCK_BATCH_LINES:", err)
		}
	}
	p := params(t)
	p.Producers = 2
	p.Simulate = []string{"--base", "2ms", "--item", "100us", "--max", "64"}
	p.Env = []string{"PENSTOCK_BLOB_URL=file://" + filepath.ToSlash(filepath.Join(t.TempDir(), "blobs")), "PENSTOCK_BACKLOG_CHECK=false"}
	s := start(t, p)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()

	base := s.Producers[1].URL
	input := uploadLines(ctx, t, base, lines)
	order := fmt.Sprintf(`{"input_file_id":%q,"endpoint":"/v1/completions","completion_window":"1h"}`, input)
	id := ask[api.Bulk](ctx, t, http.MethodPost, base+"/v1/batches", "application/json", strings.NewReader(order)).ID
	retrieve := func(from string) api.Bulk {
		return ask[api.Bulk](ctx, t, http.MethodGet, from+"/v1/batches/"+id, "", nil)
	}
	began := time.Now()
	eventually(t, 3*time.Minute, "a third has ended", func() bool { return retrieve(base).RequestCounts.Completed > lines/3 })
	owner, heir := s.Producers[0], s.Producers[1]
	if inFlight(ctx, t, s, heir) > 0 {
		owner, heir = heir, owner
	}
	before, err := system.Resident(owner.PID())
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Kill9(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	most := int64(0)
	var ended api.Bulk
	eventually(t, 5*time.Minute, "the batch has ended", func() bool {
		now, err := system.Resident(heir.PID())
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, now)
		ended = retrieve(heir.URL)
		return ended.CompletedAt != nil || ended.FailedAt != nil || ended.ExpiredAt != nil
	})
	ran := executions(t, s.Simulators[0])
	t.Logf("%d lines in %s, %s of them after the kill; the owner held %d MiB, its heir %d MiB at most; %d tasks ran, %d executions",
		lines, time.Since(began).Round(time.Second), time.Since(killed).Round(time.Second), before>>20, most>>20, len(ran.Counts), ran.Total)
	if ended.Status != "completed" || ended.RequestCounts != (api.BulkCounts{Total: lines, Completed: lines}) {
		t.Fatalf("the batch is %+v", ended)
	}
	if len(ran.Counts) != lines || ran.Total > lines+lines/100 {
		t.Errorf("%d tasks in %d executions for %d lines", len(ran.Counts), ran.Total, lines)
	}
	seen := readLines(ctx, t, heir.URL, *ended.OutputFileID)
	if len(seen) != lines {
		t.Errorf("%d lines came out; want %d", len(seen), lines)
	}
	if most > 512<<20 {
		t.Errorf("the heir held %d MiB", most>>20)
	}
}

// uploadLines sends a file of n requests while it is made.
func uploadLines(ctx context.Context, t *testing.T, base string, n int) string {
	t.Helper()
	r, w := io.Pipe()
	form := multipart.NewWriter(w)
	go func() { // ends with the form, or when the reader is closed
		part, err := form.CreateFormFile("file", "requests.jsonl")
		for i := 0; i < n && err == nil; i++ {
			_, err = fmt.Fprintf(part, `{"custom_id":"c-%d","method":"POST","url":"/v1/completions","body":{"model":"sim-chat","prompt":"line %d of a batch %s","max_tokens":8}}`+"\n",
				i, i, strings.Repeat("that is long ", 60))
		}
		if err == nil {
			err = form.WriteField("purpose", "batch")
		}
		if err == nil {
			err = form.Close()
		}
		_ = w.CloseWithError(err)
	}()
	defer r.Close()
	return ask[api.File](ctx, t, http.MethodPost, base+"/v1/files", form.FormDataContentType(), r).ID
}

// ask calls a route of the OpenAI API that must answer 200.
func ask[T any](ctx context.Context, t *testing.T, method, url, mediaType string, body io.Reader) (out T) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", mediaType)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil {
		err = json.Unmarshal(text, &out)
	}
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %d, %v: %.500s", method, url, res.StatusCode, err, text)
	}
	return out
}

// inFlight is how many lines of batches a producer has in flight.
func inFlight(ctx context.Context, t *testing.T, s *system.System, p *system.Process) int {
	t.Helper()
	return metric(ctx, t, s, p, "penstock_producer_bulk_in_flight_tasks")
}

// metric is what a process says of one of its metrics, over all labels.
func metric(ctx context.Context, t *testing.T, s *system.System, p *system.Process, name string) (sum int) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Admin(p)+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^`+name+`(?:\{[^}]*\})? (\d+)`).FindAllSubmatch(text, -1)
	if found == nil {
		t.Fatalf("no metric %s", name)
	}
	for _, f := range found {
		n, err := strconv.Atoi(string(f[1]))
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// readLines reads an output file as it comes and returns its custom ids.
func readLines(ctx context.Context, t *testing.T, base, id string) map[string]bool {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/v1/files/"+id+"/content", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	seen := map[string]bool{}
	in := bufio.NewScanner(res.Body)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var l struct {
			CustomID string `json:"custom_id"`
			Response struct {
				StatusCode int `json:"status_code"`
			}
		}
		if err := json.Unmarshal(in.Bytes(), &l); err != nil || l.Response.StatusCode != http.StatusOK {
			t.Fatalf("%v in %.300s", err, in.Bytes())
		}
		if seen[l.CustomID] {
			t.Errorf("%s has two lines", l.CustomID)
		}
		seen[l.CustomID] = true
	}
	if err := in.Err(); err != nil {
		t.Fatal(err)
	}
	return seen
}
