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
	return Operate[redrive.LetterList](ctx, c, http.MethodGet, "/admin/v1/dead-letters", url.Values{"limit": {strconv.Itoa(limit)}}, nil)
}

// DeadLetter reads the newest dead letter of a task, without its payload.
func (c *Client) DeadLetter(ctx context.Context, id task.ID) (redrive.Detail, error) {
	return Operate[redrive.Detail](ctx, c, http.MethodGet, "/admin/v1/dead-letters/"+string(id), nil, nil)
}

// Redrive starts a job that puts dead letters back to work.
func (c *Client) Redrive(ctx context.Context, r redrive.Request) (redrive.Job, error) {
	return Operate[redrive.Job](ctx, c, http.MethodPost, "/admin/v1/redrives", nil, r)
}

// RedriveJob reads a job.
func (c *Client) RedriveJob(ctx context.Context, id string) (redrive.Job, error) {
	return Operate[redrive.Job](ctx, c, http.MethodGet, "/admin/v1/redrives/"+id, nil, nil)
}

// Metrics reads what a process measures, in the Prometheus text format.
func (c *Client) Metrics(ctx context.Context, base string) (Metrics, error) {
	res, err := c.get(ctx, base, "/metrics")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	return parseMetrics(raw), nil
}
