package client

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
)

// Submit sends one task and returns once it is accepted: from then on it is not
// lost. Key is the idempotency key: the same key and request are the same task,
// for a day. With an empty one a client that tries again makes its own, so that
// its tries are one task too.
func (c *Client) Submit(ctx context.Context, r api.SubmitRequest, key string) (api.Accepted, error) {
	out, _, err := call[api.Accepted](ctx, c, c.submit(r, key))
	return out, err
}

// SubmitRaw is Submit for a body that is JSON already.
func (c *Client) SubmitRaw(ctx context.Context, body []byte, key string) (api.Accepted, error) {
	out, _, err := call[api.Accepted](ctx, c, c.submit(body, key))
	return out, err
}

// SubmitAndWait sends one task and waits up to the given time, at most
// api.MaxWait, for its end. Done is false when the time ran out first: the task
// goes on, under out.TaskID.
func (c *Client) SubmitAndWait(ctx context.Context, r api.SubmitRequest, key string, wait time.Duration) (out api.Task, done bool, err error) {
	ask := c.submit(r, key)
	ask.Header.Set("Prefer", "wait="+seconds(wait))
	raw, status, err := call[json.RawMessage](ctx, c, ask)
	if err != nil {
		return api.Task{}, false, err
	}
	// 200 carries the task, 202 the ticket; task_id and status are in both.
	if err := json.Unmarshal(raw, &out); err != nil {
		return api.Task{}, false, fmt.Errorf("decode task: %w", err)
	}
	return out, status == http.StatusOK, nil
}

// Run sends one task and waits for its end, which may be another than success.
func (c *Client) Run(ctx context.Context, r api.SubmitRequest) (api.Task, error) {
	accepted, err := c.Submit(ctx, r, "")
	if err != nil {
		return api.Task{}, err
	}
	return c.Wait(ctx, accepted.TaskID)
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
	ask := c.submit(body, "")
	ask.Path = "/v1/inference/batch"
	out, _, err := call[api.BatchResponse](ctx, c, ask)
	return out, err
}

func (c *Client) submit(body any, key string) Call {
	out := Call{Method: http.MethodPost, Path: "/v1/inference", Body: body, Repeatable: true, Header: http.Header{}}
	if key == "" && c.retries > 0 {
		key = rand.Text()
	}
	if key != "" {
		out.Header.Set("Idempotency-Key", quote(key))
	}
	return out
}

// quote writes a key as it is or, if it has something that a plain token has
// not, as a structured-field string.
func quote(key string) string {
	if !strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == ',' }) {
		return key
	}
	out := make([]byte, 0, len(key)+2)
	out = append(out, '"')
	for i := range len(key) {
		if key[i] == '"' || key[i] == '\\' {
			out = append(out, '\\')
		}
		out = append(out, key[i])
	}
	return string(append(out, '"'))
}

// Task reads one task. With a wait, at most api.MaxWait, it answers as soon as
// the task ends, or with its present state after that time.
func (c *Client) Task(ctx context.Context, id task.ID, wait time.Duration) (api.Task, error) {
	q := url.Values{}
	if wait > 0 {
		q.Set("wait", seconds(wait))
	}
	out, _, err := call[api.Task](ctx, c, Call{Method: http.MethodGet, Path: taskPath(id), Query: q, Read: true})
	return out, err
}

// longPoll is how long one call of Wait asks the server to hold it.
const longPoll = 20 * time.Second

// Wait returns a task once it has ended, or when ctx is done. Trouble that
// passes is waited out however long it lasts.
func (c *Client) Wait(ctx context.Context, id task.ID) (api.Task, error) {
	for {
		began := time.Now()
		t, err := c.Task(ctx, id, longPoll)
		switch {
		case err == nil && t.Status.Terminal():
			return t, nil
		case err != nil && !Temporary(err):
			return t, err
		}
		if err == nil && time.Since(began) > time.Second {
			continue // the server held the call for as long as it likes
		}
		if e := pause(ctx, max(time.Second, backoff(0, err))); e != nil {
			return t, fmt.Errorf("wait for %s: %w%s", id, e, lastAnswer(err))
		}
	}
}

func lastAnswer(err error) string {
	if err == nil {
		return ""
	}
	return "; last answer: " + err.Error()
}

// Cancel asks for a task's end and returns the one that won, which may be
// success. Pending is true while none is known: the cancel is durable, and Wait
// tells.
func (c *Client) Cancel(ctx context.Context, id task.ID) (t api.Task, pending bool, err error) {
	out, status, err := call[api.Task](ctx, c, Call{Method: http.MethodPost, Path: taskPath(id) + "/cancel", Repeatable: true})
	return out, status == http.StatusAccepted, err
}

// Filter narrows List and All. Zero fields do not.
type Filter struct {
	Status task.Status
	Model  string
	Label  string // name, or name=value
	After  string // cursor of the last page
	Limit  int    // tasks on a page, at most api.MaxList
}

// List reads one page of the caller's tasks, newest first and without outputs.
// A page may be short, or empty, and still have an After: the next one follows.
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
	out, _, err := call[api.TaskList](ctx, c, Call{Method: http.MethodGet, Path: "/v1/tasks", Query: q, Read: true})
	return out, err
}

// All reads every page from f.After on. An error is the last it yields.
func (c *Client) All(ctx context.Context, f Filter) iter.Seq2[api.Task, error] {
	return func(yield func(api.Task, error) bool) {
		for {
			page, err := c.List(ctx, f)
			if err != nil {
				yield(api.Task{}, err)
				return
			}
			for _, t := range page.Tasks {
				if !yield(t, nil) {
					return
				}
			}
			if f.After = page.After; f.After == "" {
				return
			}
		}
	}
}

// Models reads the models on offer.
func (c *Client) Models(ctx context.Context) (api.ModelList, error) {
	var out api.ModelList
	res, err := c.Do(ctx, Call{Method: http.MethodGet, Path: "/v1/models"})
	if err != nil {
		return out, err
	}
	defer drain(res.Body)
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		return out, broken(res, err)
	}
	return out, nil
}

func taskPath(id task.ID) string { return "/v1/tasks/" + url.PathEscape(string(id)) }

// seconds writes a duration as HTTP's waiting parameters have it.
func seconds(d time.Duration) string { return strconv.Itoa(int(d.Round(time.Second) / time.Second)) }
