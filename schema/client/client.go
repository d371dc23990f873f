// Package client speaks to a Penstock: it submits tasks, waits for them, watches
// their events, cancels and lists them. It needs the standard library only.
//
// What it promises beside the API's own guarantees: a submit goes out under an
// idempotency key, so that trying again after a failure cannot make a second
// task; and a watch that breaks goes on after its last event, on any replica,
// with no event twice and none left out.
//
// Trouble that passes (no answer, 429, 502, 503, 504) is tried again after
// jittered, growing pauses that respect the server's Retry-After. Everything
// else is returned at once, as *Error or *UnreachableError.
package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// DefaultRetries is how often a call is tried again unless Config says otherwise.
const DefaultRetries = 4

// Config says where the system is, and who calls.
type Config struct {
	API     string // base URL, as http://127.0.0.1:8080
	Results string // base URL of the routes that read, if another; default API
	Key     string // API key; none is sent when empty

	// Retries is how often a call that met trouble that passes is tried again;
	// 0 means DefaultRetries, a negative number never.
	Retries int

	Header http.Header  // sent with every request
	HTTP   *http.Client // default: one of its own, without an overall timeout, as streams need
}

// Client speaks to one system. It is safe for concurrent use.
type Client struct {
	api, results string
	key          string
	retries      int
	header       http.Header
	http         *http.Client
}

// New returns a client. It does no I/O.
func New(c Config) (*Client, error) {
	cl := &Client{api: c.API, results: c.Results, key: c.Key, retries: c.Retries, header: c.Header, http: c.HTTP}
	if cl.results == "" {
		cl.results = cl.api
	}
	if cl.retries == 0 {
		cl.retries = DefaultRetries
	}
	if cl.http == nil {
		cl.http = &http.Client{Transport: newTransport()}
	}
	for _, base := range []*string{&cl.api, &cl.results} {
		u, err := url.Parse(*base)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return nil, fmt.Errorf("base URL %q: want http://host:port", *base)
		}
		*base = strings.TrimSuffix(*base, "/")
	}
	return cl, nil
}

// idlePerHost is how many connections are kept for the next calls: Go's two
// would have most of many concurrent calls open a new one.
const idlePerHost = 64

func newTransport() http.RoundTripper {
	shared, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport // somebody's own
	}
	t := shared.Clone()
	t.MaxIdleConnsPerHost = idlePerHost
	return t
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// API returns the base URL of the routes that submit.
func (c *Client) API() string { return c.api }

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
