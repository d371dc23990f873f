package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
)

// Submit sends one task and returns once it is accepted. Key is the
// idempotency key; empty means none.
func (c *Client) Submit(ctx context.Context, r api.SubmitRequest, key string) (api.Accepted, error) {
	out, _, err := call[api.Accepted](ctx, c, request{
		method: http.MethodPost, base: c.api, path: "/v1/inference", body: r, header: keyed(key),
	})
	return out, err
}

// SubmitRaw is Submit for a body that is already JSON.
func (c *Client) SubmitRaw(ctx context.Context, body []byte, key string) (api.Accepted, error) {
	out, _, err := call[api.Accepted](ctx, c, request{
		method: http.MethodPost, base: c.api, path: "/v1/inference", body: body, header: keyed(key),
	})
	return out, err
}

// SubmitAndWait sends one task and waits up to the given time for its end. Done
// is false when the time ran out first: the task goes on, under out.TaskID.
func (c *Client) SubmitAndWait(ctx context.Context, r api.SubmitRequest, key string, wait time.Duration) (out api.Task, done bool, err error) {
	h := keyed(key)
	h.Set("Prefer", "wait="+seconds(wait))
	raw, status, err := call[json.RawMessage](ctx, c, request{
		method: http.MethodPost, base: c.api, path: "/v1/inference", body: r, header: h,
	})
	if err != nil {
		return api.Task{}, false, err
	}
	// 200 carries the task, 202 the ticket; task_id and status are in both.
	if err := json.Unmarshal(raw, &out); err != nil {
		return api.Task{}, false, fmt.Errorf("decode task: %w", err)
	}
	return out, status == http.StatusOK, nil
}

// SubmitBatch sends up to api.MaxBatch tasks in one call. The outcomes are in
// the order sent; err is only about the call as a whole.
func (c *Client) SubmitBatch(ctx context.Context, tasks []api.SubmitRequest) (api.BatchResponse, error) {
	body := api.BatchRequest{Tasks: make([]json.RawMessage, len(tasks))}
	for i := range tasks {
		raw, err := json.Marshal(tasks[i])
		if err != nil {
			return api.BatchResponse{}, fmt.Errorf("encode task %d: %w", i, err)
		}
		body.Tasks[i] = raw
	}
	out, _, err := call[api.BatchResponse](ctx, c, request{
		method: http.MethodPost, base: c.api, path: "/v1/inference/batch", body: body,
	})
	return out, err
}

// Task reads one task. With a wait it answers as soon as the task ends, or
// with its present state after that time.
func (c *Client) Task(ctx context.Context, id task.ID, wait time.Duration) (api.Task, error) {
	q := url.Values{}
	if wait > 0 {
		q.Set("wait", seconds(wait))
	}
	out, _, err := call[api.Task](ctx, c, request{
		method: http.MethodGet, base: c.results, path: "/v1/tasks/" + string(id), query: q,
	})
	return out, err
}

// Wait polls a task until it has ended or ctx is done. Trouble that passes
// (503, no answer) is waited out.
func (c *Client) Wait(ctx context.Context, id task.ID) (api.Task, error) {
	for {
		t, err := c.Task(ctx, id, longPoll)
		switch {
		case err == nil && t.Status.Terminal():
			return t, nil
		case err != nil && !passing(err):
			return t, err
		case err == nil:
			continue // the server held the call for as long as it likes
		}
		if e := pause(ctx, time.Second); e != nil {
			return t, fmt.Errorf("wait for %s: %w; last answer: %w", id, e, err)
		}
	}
}

// longPoll is how long one call of Wait asks the server to hold it.
const longPoll = 20 * time.Second

// Filter narrows List. Zero fields do not.
type Filter struct {
	Status task.Status
	Model  string
	Label  string // name=value
	After  string // cursor of the last page
	Limit  int
}

// List reads one page of the caller's tasks, newest first.
func (c *Client) List(ctx context.Context, f Filter) (api.TaskList, error) {
	q := url.Values{}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	set("status", string(f.Status))
	set("model", f.Model)
	set("label", f.Label)
	set("after", f.After)
	if f.Limit > 0 {
		set("limit", strconv.Itoa(f.Limit))
	}
	out, _, err := call[api.TaskList](ctx, c, request{method: http.MethodGet, base: c.results, path: "/v1/tasks", query: q})
	return out, err
}

// Cancel asks for a task's end and returns the terminal that won. Pending is
// true when none has been seen yet (202).
func (c *Client) Cancel(ctx context.Context, id task.ID) (t api.Task, pending bool, err error) {
	out, status, err := call[api.Task](ctx, c, request{
		method: http.MethodPost, base: c.api, path: "/v1/tasks/" + string(id) + "/cancel",
	})
	return out, status == http.StatusAccepted, err
}

// Models reads the models on offer.
func (c *Client) Models(ctx context.Context) (api.ModelList, error) {
	var out api.ModelList
	res, err := c.open(ctx, request{method: http.MethodGet, base: c.api, path: "/v1/models"})
	if err != nil {
		return out, err
	}
	defer drain(res.Body)
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		return out, fmt.Errorf("decode models: %w", err)
	}
	return out, nil
}

// Probe asks a health route of one base URL; nil means its answer was 2xx.
func (c *Client) Probe(ctx context.Context, base, path string) error {
	res, err := c.open(ctx, request{method: http.MethodGet, base: base, path: path})
	if err != nil {
		return err
	}
	drain(res.Body)
	return nil
}

func keyed(key string) http.Header {
	h := http.Header{}
	if key != "" {
		h.Set("Idempotency-Key", key)
	}
	return h
}

// passing reports whether trouble may be gone at the next try.
func passing(err error) bool {
	if e, ok := errors.AsType[*UnreachableError](err); ok {
		return !errors.Is(e.Err, context.Canceled) && !errors.Is(e.Err, context.DeadlineExceeded)
	}
	switch StatusOf(err) {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusBadGateway:
		return true
	}
	return false
}
