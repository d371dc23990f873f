//go:build e2e

package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/internal/lifecycle"
)

// reader is a client of one response, that comes back to any producer.
type reader struct {
	id     string
	after  int64 // number of the last event; -1: none
	events map[int64]string
	text   string // since output was last said to be void
	status string // once it has ended
	end    string // the text that the end has
	voided int
}

// read reads a stream until it ends, whichever way. An error of the stream is
// returned by its code, and not remembered: so do SDKs.
func (r *reader) read(ctx context.Context, method, url, body string, each func()) (code string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusServiceUnavailable && method == http.MethodGet {
		lifecycle.Pause(ctx, 100*time.Millisecond) // as it asks, if not as long
		return "", nil
	}
	if res.StatusCode != http.StatusOK {
		raw, err := io.ReadAll(res.Body)
		return "", errors.Join(fmt.Errorf("%s: status %d: %s", url, res.StatusCode, raw), err)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		if code, err := r.hear(data); code != "" || err != nil {
			return code, err
		}
		each()
	}
	return "", nil // cut, or ended: the status says which
}

func (r *reader) hear(data string) (code string, err error) {
	var e struct {
		Type     string `json:"type"`
		Number   int64  `json:"sequence_number"`
		Delta    string `json:"delta"`
		Response struct {
			ID, Status string
			Output     []struct{ Content []struct{ Text string } }
		}
		Error struct{ Code string }
	}
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		return "", err
	}
	if e.Number <= r.after {
		return "", fmt.Errorf("%s is %d, after %d", e.Type, e.Number, r.after)
	}
	if e.Type == "error" {
		return e.Error.Code, nil
	}
	r.after, r.events[e.Number] = e.Number, data
	switch e.Type {
	case "response.created":
		r.id = e.Response.ID
	case "response.in_progress":
		if r.text != "" {
			r.voided++
		}
		r.text = ""
	case "response.output_text.delta":
		r.text += e.Delta
	case "response.completed", "response.failed", "response.incomplete", "response.cancelled":
		r.status = e.Response.Status
		for _, item := range e.Response.Output {
			r.end += item.Content[0].Text
		}
	}
	return "", nil
}

// finish comes back, to one producer after another, until the response has ended.
func (r *reader) finish(ctx context.Context, producers []*system.Process) error {
	for turn := 1; r.status == ""; turn++ {
		if turn > 100 || ctx.Err() != nil {
			return fmt.Errorf("response %s has not ended after %d turns: %w", r.id, turn, ctx.Err())
		}
		url := producers[turn%len(producers)].URL + "/v1/responses/" + r.id + "?stream=true"
		if r.after >= 0 {
			url += "&starting_after=" + strconv.FormatInt(r.after, 10)
		}
		code, err := r.read(ctx, http.MethodGet, url, "", func() {})
		if err != nil || code != "" && code != "generation_interrupted" {
			return fmt.Errorf("turn %d: %q, %w", turn, code, err)
		}
	}
	return nil
}

// outputOf is the text of a response as a poll tells it.
func outputOf(t *testing.T, url string) string {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var body struct {
		Status string
		Output []struct{ Content []struct{ Text string } }
	}
	if err := json.NewDecoder(res.Body).Decode(&body); err != nil || body.Status != "completed" || len(body.Output) != 1 {
		t.Fatalf("%v, status %q, %d items", err, body.Status, len(body.Output))
	}
	return body.Output[0].Content[0].Text
}

// TestAResponseInTheBackgroundSurvivesItsWorkerAndItsProducer kills a worker and a
// producer in the midst of responses that run in the background. Their clients
// come back to another producer, and read what a poll tells; and whoever reads all
// of it afterwards gets each event under the number that it had.
func TestAResponseInTheBackgroundSurvivesItsWorkerAndItsProducer(t *testing.T) {
	const calls, tokens = 12, 150 // three seconds of tokens
	p := params(t)
	p.Workers, p.Producers = 2, 2
	s := start(t, p)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var wg, begun sync.WaitGroup
	readers := make([]*reader, calls)
	failed := make([]error, calls)
	begun.Add(calls)
	survivor := s.Producers[1:]
	for i := range calls {
		r := &reader{after: -1, events: map[int64]string{}}
		readers[i] = r
		wg.Go(func() {
			first := sync.OnceFunc(begun.Done)
			defer first()
			body := fmt.Sprintf(`{"model":"sim-chat","input":"respond %d","max_output_tokens":%d,"background":true,"stream":true}`, i, tokens)
			code, err := r.read(ctx, http.MethodPost, s.Producers[i%2].URL+"/v1/responses", body, func() {
				if r.text != "" {
					first()
				}
			})
			if err != nil || code != "" && code != "generation_interrupted" {
				failed[i] = fmt.Errorf("%q: %w", code, err)
				return
			}
			failed[i] = r.finish(ctx, survivor)
		})
	}
	begun.Wait()
	if err := errors.Join(s.Workers[0].Kill9(), s.Producers[0].Kill9()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	voided := 0
	for i, r := range readers {
		if failed[i] != nil || r.status != "completed" {
			t.Errorf("response %d: %v, status %q", i, failed[i], r.status)
			continue
		}
		want := outputOf(t, survivor[0].URL+"/v1/responses/"+r.id)
		if n := len(strings.Fields(want)); r.text != want || n != tokens {
			t.Errorf("response %d: read\n%q, it has %d words\n%q", i, r.text, n, want)
		}
		voided += r.voided
		late := &reader{id: r.id, after: -1, events: map[int64]string{}}
		if err := late.finish(ctx, survivor); err != nil || late.text != want {
			t.Errorf("response %d, read late: %v, %q", i, err, late.text)
		}
		for number, data := range late.events {
			if had, ok := r.events[number]; ok && had != data {
				t.Errorf("response %d: event %d is\n%s, was\n%s", i, number, data, had)
			}
		}
	}
	t.Logf("the output of %d of %d responses was void once", voided, calls)
	if voided == 0 || voided == calls {
		t.Log("the kill met all responses or none: half of the test says nothing")
	}
}

// TestAResponseEndsWholeThoughRedisWasEmptied empties Redis in the midst of
// responses, once with their worker alive and once with it killed. Their clients
// come back with numbers that may mean nothing any more, and are told the end.
func TestAResponseEndsWholeThoughRedisWasEmptied(t *testing.T) {
	const tokens = 150 // three seconds of tokens
	for name, kill := range map[string]bool{"the worker lives": false, "the worker dies with it": true} {
		t.Run(name, func(t *testing.T) {
			p := params(t)
			p.Workers = 2
			s := start(t, p)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			readers := make([]*reader, 8)
			for i := range readers {
				r := &reader{after: -1, events: map[int64]string{}}
				readers[i] = r
				leaving, leave := context.WithCancel(ctx)
				body := fmt.Sprintf(`{"model":"sim-chat","input":"emptied %d","max_output_tokens":%d,"background":true,"stream":true}`, i, tokens)
				code, err := r.read(leaving, http.MethodPost, s.Producers[0].URL+"/v1/responses", body, func() {
					if len(r.events) >= 8 {
						leave()
					}
				})
				leave()
				if code != "" || err != nil || r.text == "" {
					t.Fatalf("%q, %v, read %q", code, err, r.text)
				}
			}
			if kill {
				if err := s.Workers[0].Kill9(); err != nil {
					t.Fatal(err)
				}
			}
			flush(t)
			for i, r := range readers {
				if err := r.finish(ctx, s.Producers); err != nil {
					t.Fatalf("response %d: %v", i, err)
				}
				want := outputOf(t, s.Producers[0].URL+"/v1/responses/"+r.id)
				if n := len(strings.Fields(want)); r.status != "completed" || n != tokens || r.end != want {
					t.Errorf("response %d: %s, ends with\n%q, it has %d words\n%q", i, r.status, r.end, n, want)
				}
				if !strings.HasPrefix(want, r.text) {
					t.Errorf("response %d: its pieces make\n%q, no beginning of\n%q", i, r.text, want)
				}
			}
		})
	}
}
