// Package client is Penstock's own client with what the tools of this module
// need besides: the operator API, health, metrics, and events by callback.
package client

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/penstock/penstock/schema/client"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// The client's own types, so that its users need one import.
type (
	Error            = client.Error
	UnreachableError = client.UnreachableError
	Filter           = client.Filter
	Text             = client.Text
)

// StatusOf returns the HTTP status an error stands for, 0 if none.
func StatusOf(err error) int { return client.StatusOf(err) }

// Config says where the system is.
type Config struct {
	API     string // base URL of the routes that submit, as http://127.0.0.1:8080
	Results string // base URL of the routes that read; default API
	Admin   string // base URL of /admin/v1 and /metrics; default API
	Key     string // bearer token; none is sent when empty
	// Operator is who orders what on the operator API, for its audit. Empty:
	// nobody says.
	Operator string
	// Retries is how often trouble that passes is met again. 0 means never: a
	// load test and a judge want to see every answer.
	Retries int
	HTTP    *http.Client // default: a client without an overall timeout, as streams need
}

// Client speaks to one system. It is safe for concurrent use.
type Client struct {
	*client.Client
	admin *client.Client
	http  *http.Client
	key   string
}

// New returns a client. It does no I/O.
func New(c Config) (*Client, error) {
	if c.Admin == "" {
		c.Admin = c.API
	}
	if c.Retries == 0 {
		c.Retries = -1
	}
	if c.HTTP == nil {
		c.HTTP = &http.Client{Transport: newTransport()}
	}
	tasks, err := client.New(client.Config{API: c.API, Results: c.Results, Key: c.Key, Retries: c.Retries, HTTP: c.HTTP})
	if err != nil {
		return nil, err
	}
	header := http.Header{}
	if c.Operator != "" {
		header.Set("Penstock-Operator", c.Operator)
	}
	admin, err := client.New(client.Config{API: c.Admin, Key: c.Key, Retries: -1, Header: header, HTTP: c.HTTP})
	if err != nil {
		return nil, err
	}
	return &Client{Client: tasks, admin: admin, http: c.HTTP, key: c.Key}, nil
}

// newTransport keeps as many idle connections as a load test opens at once:
// the default of two per host would open a new one for nearly every call.
func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 512, 512
	t.DisableCompression = true
	return t
}

// get asks any base URL.
func (c *Client) get(ctx context.Context, base, path string) (*http.Response, error) {
	at, err := client.New(client.Config{API: strings.TrimSuffix(base, "/"), Key: c.key, Retries: -1, HTTP: c.http})
	if err != nil {
		return nil, err
	}
	return at.Do(ctx, client.Call{Method: http.MethodGet, Path: path})
}

// Probe asks a health route of one base URL; nil means its answer was 2xx.
func (c *Client) Probe(ctx context.Context, base, path string) error {
	res, err := c.get(ctx, base, path)
	if err != nil {
		return err
	}
	if err := res.Body.Close(); err != nil {
		return fmt.Errorf("close answer of %s: %w", path, err)
	}
	return nil
}

// Tail is Watch with a function that gets each event; its error ends the watch.
func (c *Client) Tail(ctx context.Context, id task.ID, after event.ID, each func(event.Event) error) error {
	for e, err := range c.Watch(ctx, id, after) {
		if err == nil {
			err = each(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// TailMany is WatchMany with a function that gets each event; its error ends
// the watch.
func (c *Client) TailMany(ctx context.Context, ids []task.ID, each func(event.Event) error) error {
	for e, err := range c.WatchMany(ctx, ids) {
		if err == nil {
			err = each(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
