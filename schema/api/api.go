// Package api holds the bodies of the native HTTP API, as clients see them.
package api

import (
	"encoding/json"
	"time"

	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// Limits of the door. All sizes in bytes.
const (
	MaxBody          = 8 << 20 // the server's default; with a blob store it takes more
	MaxDepth         = 64      // of nested JSON
	MaxBatch         = 1000    // tasks in one POST /v1/inference/batch
	MaxInputs        = 2048    // payload.inputs
	MaxLabels        = 16      // labels of a task
	MaxLabel         = 256     // a label's name or value
	MaxName          = 256     // model, session_id, ordering_key, idempotency key
	MaxWatched       = 1000    // tasks on one GET /v1/events
	MaxList          = 200     // tasks on one page
	MaxWebhookURL    = 2 << 10 // webhook.url
	MaxWait          = 60 * time.Second
	DefaultDeadline  = 24 * time.Hour
	InteractiveLimit = 10 * time.Minute // default deadline of class interactive
)

// SubmitRequest is the body of POST /v1/inference, and one item of
// POST /v1/inference/batch. Model (or a routing rule that finds one) and
// Payload are required.
type SubmitRequest struct {
	Model       string            `json:"model,omitempty"`
	Payload     task.Payload      `json:"payload"`
	Params      task.Params       `json:"params,omitempty"`
	Stream      bool              `json:"stream,omitempty"`
	Source      task.Source       `json:"source,omitempty"`
	SessionID   string            `json:"session_id,omitempty"`
	OrderingKey string            `json:"ordering_key,omitempty"`
	Memory      bool              `json:"memory,omitempty"`
	Class       task.Class        `json:"class,omitempty"`
	Deadline    *time.Time        `json:"deadline,omitempty"`
	Timeout     string            `json:"timeout,omitempty"` // a Go duration; instead of Deadline
	Labels      map[string]string `json:"labels,omitempty"`
	Webhook     *task.Webhook     `json:"webhook,omitempty"`
}

// ForwardRequest is the body of POST /api/forward: the message form, routed by
// content rules.
type ForwardRequest struct {
	MessageID string        `json:"message_id,omitempty"` // the caller's; its idempotency key, kept as label message_id
	Source    task.Source   `json:"source"`
	Payload   task.Payload  `json:"payload"`
	SessionID string        `json:"session_id,omitempty"`
	Memory    bool          `json:"memory,omitempty"`
	Timestamp *time.Time    `json:"timestamp,omitempty"`
	Webhook   *task.Webhook `json:"webhook,omitempty"`
}

// Accepted is the data of a 202.
type Accepted struct {
	TaskID    task.ID     `json:"task_id"`
	Status    task.Status `json:"status"`
	StatusURL string      `json:"status_url"`
	EventsURL string      `json:"events_url"`
	CancelURL string      `json:"cancel_url"`
}

// NewAccepted returns what the caller of an accepted task is told.
func NewAccepted(id task.ID) Accepted {
	url := "/v1/tasks/" + string(id)
	return Accepted{TaskID: id, Status: task.Queued, StatusURL: url, EventsURL: url + "/events", CancelURL: url + "/cancel"}
}

// BatchRequest is the body of POST /v1/inference/batch.
type BatchRequest struct {
	Tasks []json.RawMessage `json:"tasks"`
}

// BatchItem is the outcome of one item, in the order sent: Accepted or Error.
type BatchItem struct {
	Index    int       `json:"index"`
	Code     int       `json:"code"` // HTTP status this item alone would have had
	Accepted *Accepted `json:"accepted,omitempty"`
	Error    *Error    `json:"error,omitempty"`
}

// BatchResponse is the data of POST /v1/inference/batch.
type BatchResponse struct {
	Accepted int         `json:"accepted"`
	Refused  int         `json:"refused"`
	Items    []BatchItem `json:"items"`
}

// Task is the data of GET /v1/tasks/{id}, and of a waiting submit.
type Task struct {
	TaskID     task.ID           `json:"task_id"`
	Status     task.Status       `json:"status"`
	Generation uint8             `json:"generation"`
	Model      string            `json:"model,omitempty"`
	Class      task.Class        `json:"class,omitempty"`
	Output     *task.Output      `json:"output,omitempty"`
	Fence      string            `json:"-"` // of the attempt that the output is of
	OutputRef  *task.Ref         `json:"-"` // where Output lies when it is not here; answers carry the output itself
	Usage      *task.Usage       `json:"usage,omitempty"`
	Error      *terminal.Error   `json:"error,omitempty"`
	Attempts   []task.Attempt    `json:"attempts"`
	Labels     map[string]string `json:"labels,omitempty"`
	CreatedAt  *time.Time        `json:"created_at,omitempty"`
	EndedAt    *time.Time        `json:"ended_at,omitempty"`
}

// TaskList is the data of GET /v1/tasks.
type TaskList struct {
	Tasks []Task `json:"tasks"`
	After string `json:"after,omitempty"` // cursor of the next page; empty on the last
}

// WebhookSecret is the data of GET /v1/webhooks/secret.
type WebhookSecret struct {
	Secret string `json:"secret"` // whsec_…, as the libraries of Standard Webhooks take it
}

// Model is one entry of GET /v1/models, in the OpenAI shape.
type Model struct {
	ID      string `json:"id"`
	Object  string `json:"object"` // "model"
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

// ModelList is the body of GET /v1/models: not enveloped, so that OpenAI
// clients can read it.
type ModelList struct {
	Object string  `json:"object"` // "list"
	Data   []Model `json:"data"`
}

// Error is the `error` member of an envelope.
type Error struct {
	Type    fault.Code `json:"type"`
	Message string     `json:"message,omitempty"` // on batch items, which have no envelope of their own
	Param   string     `json:"param,omitempty"`   // JSON path of what is wrong
}

// Envelope is the body of every native answer. Code is 0, or the HTTP status
// of an error.
type Envelope struct {
	Code      int             `json:"code"`
	Message   string          `json:"message"`
	Data      json.RawMessage `json:"data"`
	Error     *Error          `json:"error,omitempty"`
	RequestID string          `json:"request_id"`
}

// OfTerminal returns the task as its winning terminal tells it.
func OfTerminal(t *terminal.Terminal, generation uint8) Task {
	created, ended := t.CreatedAt, t.EndedAt
	view := Task{
		TaskID: t.TaskID, Status: t.Status, Generation: generation, Model: t.Model, Class: t.Class,
		Output: t.Output, Fence: t.Fence, OutputRef: t.OutputRef, Usage: t.Usage, Error: t.Error, Attempts: t.Attempts, Labels: t.Labels, EndedAt: &ended,
	}
	if view.Attempts == nil {
		view.Attempts = []task.Attempt{}
	}
	if !created.IsZero() {
		view.CreatedAt = &created
	}
	return view
}
