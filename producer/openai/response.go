package openai

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// States of a response.
const (
	responseQueued     = "queued"
	responseInProgress = "in_progress"
	responseCompleted  = "completed"
	responseIncomplete = "incomplete"
	responseFailed     = "failed"
	responseCancelled  = "cancelled"
)

const (
	responsePrefix = "resp_"
	taskPrefix     = "task_"
)

// ResponseID is the id that the response of a task has.
func ResponseID(id task.ID) string { return responsePrefix + suffixOf(id) }

// ResponseTask is the task of a response; false for text that is no such id.
func ResponseTask(id string) (task.ID, bool) {
	rest, ok := strings.CutPrefix(id, responsePrefix)
	if !ok {
		return "", false
	}
	of, err := task.ParseID(taskPrefix + rest)
	return of, err == nil
}

func suffixOf(id task.ID) string { return strings.TrimPrefix(string(id), taskPrefix) }

// Response is a response as far as its request tells it. What it looks like is
// computed from that and its task alone, so it is the same wherever it is read.
type Response struct {
	Task     task.ID
	Request  *ResponseRequest
	Restored bool // events of its task may be lost without a trace
}

// Background reports whether nobody waits for the response. Nil is none.
func (r *Response) Background() bool { return r != nil && r.Request.Echo.Background }

// responseBody is the object of the API.
type responseBody struct {
	ID                string            `json:"id"`
	Object            string            `json:"object"`
	CreatedAt         int64             `json:"created_at"`
	Status            string            `json:"status"`
	CompletedAt       *int64            `json:"completed_at"`
	Error             *responseError    `json:"error"`
	IncompleteDetails map[string]string `json:"incomplete_details"`
	ResponseEcho
	Output []json.RawMessage `json:"output"`
	Usage  *responseUsage    `json:"usage"`
}

// responseError says why a response failed: by a code that clients know, and by
// our own as the type.
type responseError struct {
	Code    string     `json:"code"`
	Message string     `json:"message"`
	Type    fault.Code `json:"type"`
	Param   *string    `json:"param"`
}

type responseUsage struct {
	Input         int            `json:"input_tokens"`
	InputDetails  map[string]int `json:"input_tokens_details"`
	Output        int            `json:"output_tokens"`
	OutputDetails map[string]int `json:"output_tokens_details"`
	Total         int            `json:"total_tokens"`
}

func usageOf(u *task.Usage) *responseUsage {
	if u == nil {
		return nil
	}
	return &responseUsage{
		Input: u.PromptTokens, InputDetails: map[string]int{"cached_tokens": 0, "cache_write_tokens": 0},
		Output: u.CompletionTokens, OutputDetails: map[string]int{"reasoning_tokens": 0}, Total: u.TotalTokens,
	}
}

// Body is the response as its task stands.
func (r Response) Body(t api.Task) []byte { return encode(r.body(t)) }

// Accepted is the response of a task that was accepted just now.
func (r Response) Accepted() []byte { return encode(r.open(r.first())) }

// first is the state that a response begins in.
func (r Response) first() string {
	if r.Request.Echo.Background {
		return responseQueued
	}
	return responseInProgress
}

// open is the response while its task has not ended.
func (r Response) open(status string) responseBody {
	return responseBody{
		ID: ResponseID(r.Task), Object: "response", CreatedAt: r.Request.At, Status: status,
		ResponseEcho: r.Request.Echo, Output: []json.RawMessage{},
	}
}

func (r Response) body(t api.Task) responseBody {
	switch {
	case t.Status == task.Running:
		return r.open(responseInProgress)
	case !t.Status.Terminal():
		return r.open(responseQueued)
	case t.Status == task.Cancelled:
		return r.open(responseCancelled)
	case Failed(t.Status, t.Output, t.Error):
		return r.failed(t.Status, t.Error)
	}
	items, finish, err := outputOf(r.Task, t.Output)
	if err != nil {
		return r.failed(task.Dead, &terminal.Error{Code: fault.Internal, Message: "the engine's answer is not of the protocol's shape"})
	}
	return r.ended(items, finish, t)
}

func (r Response) failed(status task.Status, e *terminal.Error) responseBody {
	b := r.open(responseFailed)
	f := FailureOf(status, e)
	b.Error = &responseError{Message: f.Message, Code: "server_error", Type: fault.Internal}
	if f.Code != nil {
		b.Error.Type = fault.Code(*f.Code)
	}
	if e != nil {
		b.Error.Type = e.Code
	}
	switch b.Error.Type {
	case fault.Throttled:
		b.Error.Code = codeRateLimit
	case fault.Rejected:
		b.Error.Code = "invalid_prompt"
	}
	return b
}

// ended is a response with its output, whole or cut short.
func (r Response) ended(items []*outputItem, finish string, t api.Task) responseBody {
	b := r.open(responseCompleted)
	switch finish {
	case "length":
		b.Status, b.IncompleteDetails = responseIncomplete, map[string]string{"reason": "max_output_tokens"}
	case "content_filter":
		b.Status, b.IncompleteDetails = responseIncomplete, map[string]string{"reason": "content_filter"}
	default:
		if t.EndedAt != nil {
			at := t.EndedAt.Unix()
			b.CompletedAt = &at
		}
	}
	for _, it := range items {
		b.Output = append(b.Output, it.json(b.Status))
	}
	b.Usage = usageOf(t.Usage)
	return b
}

// Messages are those that a response which has ended adds to a conversation: its
// input and its output. False for one that has no output to go on from.
func (r Response) Messages(t api.Task) (_ []Message, ok bool, err error) {
	if !t.Status.Terminal() || Failed(t.Status, t.Output, t.Error) {
		return nil, false, nil
	}
	all, err := messagesOf(r.Request.Input)
	if err != nil {
		return nil, false, fmt.Errorf("read input of response: %w", err)
	}
	items, _, err := outputOf(r.Task, t.Output)
	if err != nil {
		return nil, false, err
	}
	return append(all, answerOf(items)), true, nil
}

// Deleted is the answer for a response that is gone.
func Deleted(id task.ID) []byte {
	return encode(map[string]any{"id": ResponseID(id), "object": "response", "deleted": true})
}
