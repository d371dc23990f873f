package moderation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/retryafter"
	"github.com/penstock/penstock/schema/fault"
)

// Filter asks the operator's endpoint. It is safe for concurrent use.
type Filter struct {
	c       Config
	client  *http.Client
	slots   chan struct{} // one token for each call under way
	metrics *metrics
}

// MaxAnswer is the largest answer that is read, in bytes.
const MaxAnswer = 1 << 20

// retryFull is how long a caller waits who found no slot.
const retryFull = time.Second

// New returns a filter; it calls nobody before Ask. The configuration is one
// that Validate passed, with a URL.
func New(c Config, reg prometheus.Registerer) *Filter {
	return &Filter{c: c, slots: make(chan struct{}, c.Concurrency), metrics: newMetrics(reg), client: &http.Client{
		// A token is for the endpoint that was named, and for no other.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: c.Timeout / 2}).DialContext,
			TLSHandshakeTimeout:    c.Timeout / 2,
			ForceAttemptHTTP2:      true,
			MaxResponseHeaderBytes: 16 << 10,
			MaxIdleConnsPerHost:    c.Concurrency,
			IdleConnTimeout:        90 * time.Second,
		},
	}}
}

// Close closes the connections that are idle.
func (f *Filter) Close() { f.client.CloseIdleConnections() }

// Ask sends a body of the moderations API and returns the filter's answer, a
// JSON object. Errors are *fault.Error: Rejected for an input that the filter
// does not take, Throttled, Timeout, and Unavailable for whatever else keeps the
// answer away, a full house here among it.
func (f *Filter) Ask(ctx context.Context, body []byte) ([]byte, error) {
	answer, err := f.ask(ctx, body)
	switch {
	case err == nil:
		f.metrics.calls.WithLabelValues(outcomeAnswered).Inc()
	case ctx.Err() == nil: // else the caller went away
		f.metrics.calls.WithLabelValues(string(fault.CodeOf(err))).Inc()
	}
	return answer, err
}

func (f *Filter) ask(ctx context.Context, body []byte) ([]byte, error) {
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	default:
		return nil, &fault.Error{Code: fault.Unavailable, RetryAfter: retryFull, Message: "too many inputs are being moderated just now; send this one again"}
	}
	ctx, cancel := context.WithTimeout(ctx, f.c.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.c.URL, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask filter: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if token := f.c.Token.Reveal(); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	began := time.Now()
	res, err := f.client.Do(req)
	if err != nil {
		return nil, silent(ctx, err)
	}
	defer res.Body.Close()
	f.metrics.duration.Observe(time.Since(began).Seconds())
	return read(ctx, res)
}

// read takes an answer for what its status says. What the filter writes of its
// own troubles is for its operator and not for our callers.
func read(ctx context.Context, res *http.Response) ([]byte, error) {
	answer, err := io.ReadAll(io.LimitReader(res.Body, MaxAnswer+1))
	switch {
	case err != nil:
		return nil, silent(ctx, err)
	case res.StatusCode == http.StatusTooManyRequests:
		return nil, &fault.Error{Code: fault.Throttled, RetryAfter: retryafter.Parse(res.Header, time.Now()), Message: "the filter takes no more just now"}
	case refuses(res.StatusCode):
		return nil, fault.New(fault.Rejected, "the filter does not take this input, or this model (status %d)", res.StatusCode)
	case res.StatusCode != http.StatusOK:
		return nil, &fault.Error{
			Code: fault.Unavailable, RetryAfter: retryafter.Parse(res.Header, time.Now()),
			Message: "the filter cannot answer just now", Err: fmt.Errorf("filter answers %d", res.StatusCode),
		}
	case len(answer) > MaxAnswer || !isVerdict(answer):
		return nil, &fault.Error{Code: fault.Unavailable, Message: "the filter's answer is not of the protocol's shape", Err: errShape}
	}
	return answer, nil
}

// refuses reports whether a status is the filter's word on the input.
func refuses(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

var errShape = errors.New("no object with results")

// isVerdict reports whether an answer has what every client reads.
func isVerdict(answer []byte) bool {
	var v struct {
		Results []struct {
			Flagged *bool `json:"flagged"`
		} `json:"results"`
	}
	if json.Unmarshal(answer, &v) != nil || len(v.Results) == 0 {
		return false
	}
	for _, r := range v.Results {
		if r.Flagged == nil {
			return false
		}
	}
	return true
}

// silent is the fault of a filter that gave no answer.
func silent(ctx context.Context, err error) error {
	if timeout, ok := errors.AsType[net.Error](err); errors.Is(ctx.Err(), context.DeadlineExceeded) || ok && timeout.Timeout() {
		return &fault.Error{Code: fault.Timeout, Message: "the filter did not answer in time", Err: err}
	}
	return &fault.Error{Code: fault.Unavailable, Message: "the filter cannot be reached just now", Err: err}
}
