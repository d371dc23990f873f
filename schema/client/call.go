package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/penstock/penstock/schema/api"
)

// Call is one request, for routes that have no method here.
type Call struct {
	Method string
	Path   string // below the base URL, with its leading slash
	Query  url.Values
	Header http.Header
	Body   any  // encoded as JSON unless it is []byte; nil: none
	Read   bool // the route is one that reads: it is asked of Config.Results

	// Repeatable says that a second try does no harm. A GET is repeatable
	// anyway.
	Repeatable bool
}

// Do sends a call and returns the answer if its status is below 300; the caller
// closes its body. Trouble that passes is tried again if the call may be
// repeated.
func (c *Client) Do(ctx context.Context, call Call) (*http.Response, error) {
	body, err := encode(call.Body)
	if err != nil {
		return nil, err
	}
	retries := c.retries
	if !call.Repeatable && call.Method != http.MethodGet {
		retries = 0
	}
	for try := 0; ; try++ {
		res, err := c.once(ctx, call, body)
		if err == nil || try >= retries || !Temporary(err) {
			return res, err
		}
		wait := backoff(try, err)
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait || wait > patience {
			return nil, err // it says more than that the time was up
		}
		if e := pause(ctx, wait); e != nil {
			return nil, fmt.Errorf("%w; before that: %w", e, err)
		}
	}
}

// The pauses between tries: they grow from the first, and the server's wish is
// respected up to patience.
const (
	firstPause = 200 * time.Millisecond
	mostPause  = 10 * time.Second
	patience   = 2 * time.Minute
)

// backoff is the pause after a failed try. Its jitter keeps those who failed
// together from coming back together.
func backoff(try int, err error) time.Duration {
	if e, ok := errors.AsType[*Error](err); ok && e.RetryAfter > 0 {
		return e.RetryAfter + rand.N(e.RetryAfter/4+firstPause)
	}
	grown := min(firstPause<<min(try, 8), mostPause)
	return grown/2 + rand.N(grown/2+1)
}

func encode(body any) ([]byte, error) {
	switch b := body.(type) {
	case nil:
		return nil, nil
	case []byte:
		return b, nil
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	return raw, nil
}

// once sends a call one time.
func (c *Client) once(ctx context.Context, call Call, body []byte) (*http.Response, error) {
	req, err := c.build(ctx, call, body)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, &UnreachableError{URL: c.base(call), Err: err}
	}
	if res.StatusCode >= 300 {
		return nil, readError(res)
	}
	return res, nil
}

func (c *Client) base(call Call) string {
	if call.Read {
		return c.results
	}
	return c.api
}

func (c *Client) build(ctx context.Context, call Call, body []byte) (*http.Request, error) {
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	to := c.base(call) + call.Path
	if len(call.Query) > 0 {
		to += "?" + call.Query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, call.Method, to, reader)
	if err != nil {
		return nil, fmt.Errorf("build request: %w", err)
	}
	for _, h := range []http.Header{c.header, call.Header} {
		for name, values := range h {
			req.Header[name] = values
		}
	}
	if body != nil && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	return req, nil
}

// Data decodes the data of an answer in the native envelope, and closes it. An
// answer without content has none.
func Data[T any](res *http.Response) (T, error) {
	var data T
	defer drain(res.Body)
	if res.StatusCode == http.StatusNoContent {
		return data, nil
	}
	var env api.Envelope
	if err := json.NewDecoder(res.Body).Decode(&env); err != nil {
		return data, broken(res, err)
	}
	if err := json.Unmarshal(env.Data, &data); err != nil {
		return data, fmt.Errorf("decode data of %s: %w", res.Request.URL.Path, err)
	}
	return data, nil
}

// broken tells an answer that was cut off from one that is not what it should
// be.
func broken(res *http.Response, err error) error {
	_, syntax := errors.AsType[*json.SyntaxError](err)
	_, kind := errors.AsType[*json.UnmarshalTypeError](err)
	if syntax || kind {
		return fmt.Errorf("decode answer of %s: %w", res.Request.URL.Path, err)
	}
	return &UnreachableError{URL: res.Request.URL.Host, Err: err}
}

// call sends a request and decodes the data of its answer.
func call[T any](ctx context.Context, c *Client, r Call) (data T, status int, err error) {
	res, err := c.Do(ctx, r)
	if err != nil {
		return data, 0, err
	}
	data, err = Data[T](res)
	return data, res.StatusCode, err
}

// maxDrain is what is read of a body so that its connection can be used again;
// what is longer is cheaper to drop with it.
const maxDrain = 1 << 20

func drain(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, maxDrain)
	_ = body.Close()
}
