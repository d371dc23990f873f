package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/redrive"
)

// DeadLetters reads the newest dead letters, at most limit.
func (c *Client) DeadLetters(ctx context.Context, limit int) (redrive.LetterList, error) {
	out, _, err := call[redrive.LetterList](ctx, c, request{
		method: http.MethodGet, base: c.admin, path: "/admin/v1/dead-letters",
		query: url.Values{"limit": {strconv.Itoa(limit)}},
	})
	return out, err
}

// DeadLetter reads the newest dead letter of a task, without its payload.
func (c *Client) DeadLetter(ctx context.Context, id task.ID) (redrive.Detail, error) {
	out, _, err := call[redrive.Detail](ctx, c, request{
		method: http.MethodGet, base: c.admin, path: "/admin/v1/dead-letters/" + string(id),
	})
	return out, err
}

// Redrive starts a job that puts dead letters back to work.
func (c *Client) Redrive(ctx context.Context, r redrive.Request) (redrive.Job, error) {
	out, _, err := call[redrive.Job](ctx, c, request{
		method: http.MethodPost, base: c.admin, path: "/admin/v1/redrives", body: r,
	})
	return out, err
}

// RedriveJob reads a job.
func (c *Client) RedriveJob(ctx context.Context, id string) (redrive.Job, error) {
	out, _, err := call[redrive.Job](ctx, c, request{
		method: http.MethodGet, base: c.admin, path: "/admin/v1/redrives/" + id,
	})
	return out, err
}

// Metrics reads what a process measures, in the Prometheus text format.
func (c *Client) Metrics(ctx context.Context, base string) (Metrics, error) {
	res, err := c.open(ctx, request{method: http.MethodGet, base: base, path: "/metrics"})
	if err != nil {
		return nil, err
	}
	defer drain(res.Body)
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	return parseMetrics(raw), nil
}
