// Package client is a small client of Penstock's native HTTP API: what the CLI,
// the demo, the benchmark and the end-to-end tests speak to a running system.
//
// It does not retry submits, because a caller may want to see every answer;
// it does resume event streams, because that is what their ids are for.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
)

// Config says where the system is.
type Config struct {
	API     string // base URL of the routes that submit, as http://127.0.0.1:8080
	Results string // base URL of the routes that read; default API
	Admin   string // base URL of /admin/v1 and /metrics; default API
	Key     string // bearer token; none is sent when empty
	// Operator is who orders what on the operator API, for its audit. Empty:
	// nobody says.
	Operator string
	HTTP     *http.Client // default: a client without an overall timeout, as streams need
}

// Client speaks to one system. It is safe for concurrent use.
type Client struct {
	api, results, admin string
	key, operator       string
	http                *http.Client
}

// New returns a client. It does no I/O.
func New(c Config) (*Client, error) {
	cl := &Client{api: c.API, results: c.Results, admin: c.Admin, key: c.Key, operator: c.Operator, http: c.HTTP}
	if cl.results == "" {
		cl.results = cl.api
	}
	if cl.admin == "" {
		cl.admin = cl.api
	}
	if cl.http == nil {
		cl.http = &http.Client{Transport: newTransport()}
	}
	for _, base := range []*string{&cl.api, &cl.results, &cl.admin} {
		u, err := url.Parse(*base)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return nil, fmt.Errorf("base URL %q: want http://host:port", *base)
		}
		*base = strings.TrimSuffix(*base, "/")
	}
	return cl, nil
}

// newTransport keeps as many idle connections as a load test opens at once:
// the default of two per host would open a new one for nearly every call.
func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 512, 512
	t.DisableCompression = true
	return t
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// API returns the base URL of the routes that submit.
func (c *Client) API() string { return c.api }

// request describes one call.
type request struct {
	method, base, path string
	query              url.Values
	body               any // marshalled unless it is []byte
	header             http.Header
}

// open sends a request and returns the answer if its status is below 300, else
// an *Error. The caller closes the body.
func (c *Client) open(ctx context.Context, r request) (*http.Response, error) {
	req, err := c.build(ctx, r)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, &UnreachableError{URL: r.base, Err: err}
	}
	if res.StatusCode < 300 {
		return res, nil
	}
	defer drain(res.Body)
	return nil, readError(res)
}

func (c *Client) build(ctx context.Context, r request) (*http.Request, error) {
	var body io.Reader
	switch b := r.body.(type) {
	case nil:
	case []byte:
		body = bytes.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(raw)
	}
	to := r.base + r.path
	if len(r.query) > 0 {
		to += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, to, body)
	if err != nil {
		return nil, fmt.Errorf("build request: %w", err)
	}
	for name, values := range r.header {
		req.Header[name] = values
	}
	if body != nil && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	if c.operator != "" && r.base == c.admin && strings.HasPrefix(r.path, "/admin/") {
		req.Header.Set("Penstock-Operator", c.operator)
	}
	return req, nil
}

// call sends a request and decodes the data of the envelope it answers.
func call[T any](ctx context.Context, c *Client, r request) (T, int, error) {
	var data T
	res, err := c.open(ctx, r)
	if err != nil {
		return data, 0, err
	}
	defer drain(res.Body)
	if res.StatusCode == http.StatusNoContent {
		return data, res.StatusCode, nil
	}
	var env api.Envelope
	if err := json.NewDecoder(res.Body).Decode(&env); err != nil {
		return data, res.StatusCode, fmt.Errorf("decode answer of %s %s: %w", r.method, r.path, err)
	}
	if err := json.Unmarshal(env.Data, &data); err != nil {
		return data, res.StatusCode, fmt.Errorf("decode data of %s %s: %w", r.method, r.path, err)
	}
	return data, res.StatusCode, nil
}

// drain lets the connection be used again.
func drain(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, 1<<20) // what is longer is cheaper to drop with its connection
	_ = body.Close()
}

// Error is an answer with an error status.
type Error struct {
	Status     int
	Type       fault.Code
	Message    string
	Param      string
	RequestID  string
	RetryAfter string
}

// Error implements error: cause and cure as the server wrote them.
func (e *Error) Error() string {
	msg := e.Message
	if msg == "" {
		msg = http.StatusText(e.Status)
	}
	if e.Param != "" {
		msg += " (at " + e.Param + ")"
	}
	msg = fmt.Sprintf("%d %s: %s", e.Status, e.Type, msg)
	if e.RetryAfter != "" {
		msg += "; retry after " + e.RetryAfter + " s"
	}
	return msg
}

// UnreachableError is returned when no answer came at all.
type UnreachableError struct {
	URL string
	Err error
}

// Error implements error.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("no answer from %s: %v; is it running? start one with `penstock dev`", e.URL, e.Err)
}

// Unwrap returns the transport's error.
func (e *UnreachableError) Unwrap() error { return e.Err }

// StatusOf returns the HTTP status an error stands for, 0 if none.
func StatusOf(err error) int {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status
	}
	return 0
}

func readError(res *http.Response) error {
	out := &Error{Status: res.StatusCode, RetryAfter: res.Header.Get("Retry-After")}
	raw, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return &UnreachableError{URL: res.Request.URL.Host, Err: err}
	}
	var env api.Envelope
	if json.Unmarshal(raw, &env) == nil && env.Error != nil {
		out.Type, out.Param = env.Error.Type, env.Error.Param
		out.Message, out.RequestID = env.Message, env.RequestID
		return out
	}
	out.Message = strings.TrimSpace(string(raw[:min(len(raw), 200)]))
	return out
}

// seconds writes a duration as HTTP's waiting parameters have it.
func seconds(d time.Duration) string { return fmt.Sprintf("%d", int(d.Round(time.Second)/time.Second)) }
