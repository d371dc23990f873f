//go:build e2e

package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/worker/backend/simulated"
)

// callOpenAI sends a body to a producer; headers are name, value, ….
func callOpenAI(ctx context.Context, p *system.Process, body string, headers ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL+"/v1/completions", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return http.DefaultClient.Do(req)
}

// heard is what a client of a completion has got.
type heard struct {
	status int
	text   string
	code   string // of an error
	whole  bool   // finish_reason and [DONE], or a plain answer
	cut    bool
}

// listen reads an answer; first is closed once a part of it is here.
func listen(res *http.Response, first func()) (h heard) {
	defer res.Body.Close()
	h.status = res.StatusCode
	finished := false
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		data := strings.TrimPrefix(lines.Text(), "data: ")
		if data == "[DONE]" {
			h.whole = finished
		}
		var c struct {
			Object  string
			Choices []struct {
				Text         string
				FinishReason string `json:"finish_reason"`
			}
			Error struct{ Code string }
		}
		if json.Unmarshal([]byte(data), &c) != nil {
			continue
		}
		h.code += c.Error.Code
		for _, one := range c.Choices {
			h.text += one.Text
			finished = finished || one.FinishReason != ""
			first()
		}
	}
	h.cut = lines.Err() != nil
	if !strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		h.whole = finished
	}
	return h
}

// TestAKilledWorkerIsNeverASilentTruncation kills a worker in the midst of
// answers: streams end whole or say that they were interrupted, and calls that
// wait do not notice.
func TestAKilledWorkerIsNeverASilentTruncation(t *testing.T) {
	const calls, tokens = 24, 150 // three seconds of tokens
	p := params(t)
	p.Workers = 2
	s := start(t, p)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var wg, begun sync.WaitGroup
	got := make([]heard, calls)
	for i := range calls {
		streamed := i%2 == 0
		if streamed {
			begun.Add(1)
		}
		wg.Go(func() {
			first := sync.OnceFunc(func() {
				if streamed {
					begun.Done()
				}
			})
			defer first()
			res, err := callOpenAI(ctx, s.Producers[0], fmt.Sprintf(`{"model":"sim-chat","prompt":"kill %d","max_tokens":%d,"stream":%t}`, i, tokens, streamed))
			if err != nil {
				t.Errorf("call %d: %v", i, err)
				return
			}
			got[i] = listen(res, first)
		})
	}
	begun.Wait()
	if err := s.Workers[0].Kill9(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	interrupted := 0
	for i, h := range got {
		want := simulated.Text(fmt.Sprintf("kill %d", i), tokens)
		switch {
		case h.whole && h.text == want && h.code == "":
		case i%2 == 0 && h.code == "generation_interrupted" && !h.whole && strings.HasPrefix(want, h.text):
			interrupted++
		default:
			t.Errorf("call %d: %+v", i, h)
		}
	}
	t.Logf("%d of %d streams were interrupted", interrupted, calls/2)
	if interrupted == 0 || interrupted == calls/2 {
		t.Log("the kill met all streams or none: half of the test says nothing")
	}
}

// TestARetryOnAnotherProducerJoinsItsCall kills the producer that serves a call,
// and retries on another as an SDK does.
func TestARetryOnAnotherProducerJoinsItsCall(t *testing.T) {
	p := params(t)
	p.Producers, p.Simulate = 2, []string{"--base", "2s"}
	s := start(t, p)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	const body = `{"model":"sim-chat","prompt":"served twice, run once","max_tokens":4}`
	failed := make(chan error, 1) // one outcome
	go func() {
		res, err := callOpenAI(ctx, s.Producers[0], body, "X-Stainless-Retry-Count", "0")
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
		failed <- err
	}()
	eventually(t, 30*time.Second, "the task runs", func() bool { return executions(t, s.Simulators[0]).Total > 0 })
	if err := s.Producers[0].Kill9(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err == nil {
		t.Fatal("the call was answered before its producer was killed")
	}
	res, err := callOpenAI(ctx, s.Producers[1], body, "X-Stainless-Retry-Count", "1")
	if err != nil {
		t.Fatal(err)
	}
	id := res.Header.Get("X-Task-Id")
	h := listen(res, func() {})
	if !h.whole || h.text != simulated.Text("served twice, run once", 4) {
		t.Errorf("%+v", h)
	}
	if ran := executions(t, s.Simulators[0]); ran.Total != 1 || ran.Counts[id] != 1 {
		t.Errorf("%d executions, %d of task %s", ran.Total, ran.Counts[id], id)
	}
}
