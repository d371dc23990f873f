// Package task defines the task: one accepted inference request, with an id
// for life, the states it passes through, and what its records carry from hop
// to hop.
package task

import (
	"encoding/json"
	"time"
)

// SchemaVersion is the version of the record value this package describes.
const SchemaVersion = 1

// Kind says what is asked of the model, and so which backends can do it and
// which tasks may share a batch.
type Kind string

// Kinds of task.
const (
	Completion Kind = "completion" // payload.text, or payload.inputs with prompts
	Chat       Kind = "chat"       // payload.messages
	Embedding  Kind = "embedding"  // payload.text or payload.inputs with texts or token ids
)

// Source says what sort of client sent the task.
type Source string

// Sources of tasks.
const (
	SourceWeb Source = "web"
	SourceApp Source = "app"
	SourceIOT Source = "iot"
	SourceAPI Source = "api"
)

// Class is the service class: which lane a task travels in.
type Class string

// Classes, most urgent first.
const (
	Interactive Class = "interactive"
	Standard    Class = "standard"
	Bulk        Class = "bulk"
)

// Classes returns every class, most urgent first.
func Classes() []Class { return []Class{Interactive, Standard, Bulk} }

// Task is the value of a record on a tasks, retry or dead-letter topic: plain
// JSON, valid against task.schema.json.
type Task struct {
	SchemaVersion int               `json:"schema_version"`
	ID            ID                `json:"message_id"`
	Kind          Kind              `json:"kind"`
	Source        Source            `json:"source"`
	Tenant        string            `json:"tenant"`
	Model         string            `json:"model"`
	Class         Class             `json:"class"`
	SessionID     string            `json:"session_id,omitempty"`
	OrderingKey   string            `json:"ordering_key,omitempty"`
	Memory        bool              `json:"memory,omitempty"` // what was said before in the session is given to the model
	Payload       Payload           `json:"payload"`
	Params        Params            `json:"params,omitempty"`
	Stream        bool              `json:"stream,omitempty"`
	Timestamp     time.Time         `json:"timestamp"`
	Deadline      time.Time         `json:"deadline"`
	Labels        map[string]string `json:"labels,omitempty"`
	Webhook       *Webhook          `json:"webhook,omitempty"`
}

// Payload is what the model is given: exactly one of Text, Messages, Inputs
// and Ref is set.
type Payload struct {
	Text     string            `json:"text,omitempty"`
	Messages json.RawMessage   `json:"messages,omitempty"` // chat messages, as the OpenAI API has them
	Inputs   []json.RawMessage `json:"inputs,omitempty"`   // prompts, texts, token ids, or any JSON for a JSON batch backend
	Ref      *Ref              `json:"ref,omitempty"`      // the payload lies in the blob store
	Context  json.RawMessage   `json:"context,omitempty"`  // free for routing rules, not sent to a backend
}

// Ref is a claim check: a payload or result that lies in the blob store, as the
// JSON it would be in a record. A payload's Context lies there with it.
type Ref struct {
	Key    string `json:"key"`    // name in the store; of a payload the record's header decides, since a redrive renews it
	SHA256 string `json:"sha256"` // hex; the reader checks it
	Bytes  int64  `json:"bytes"`
}

// Params are the sampling parameters and options for the backend, by the names
// the OpenAI API gives them. Values stay as the caller wrote them.
type Params map[string]json.RawMessage

// Int returns a whole-number parameter, or otherwise if it is absent or not a
// whole number.
func (p Params) Int(name string, otherwise int) int {
	n := otherwise
	if raw, ok := p[name]; !ok || json.Unmarshal(raw, &n) != nil {
		return otherwise
	}
	return n
}

// Webhook asks for a signed callback when the task ends.
type Webhook struct {
	URL    string      `json:"url"`
	Events []string    `json:"events,omitempty"`
	Form   WebhookForm `json:"form,omitempty"`
}

// WebhookForm is as what a task was asked for, and so is told of. A caller does
// not choose it: it follows from the route.
type WebhookForm string

// Forms of a task's events.
const (
	FormTask     WebhookForm = ""         // task.succeeded and so on
	FormResponse WebhookForm = "response" // response.completed and so on, as the OpenAI API has them
)

// PartitionKey is the Kafka key of the task's record: the ordering key, else
// the id.
func (t Task) PartitionKey() string {
	if t.OrderingKey != "" {
		return t.OrderingKey
	}
	return string(t.ID)
}

// Size is how many bytes of content a payload has here. One that lies in the
// blob store has none.
func (p Payload) Size() int {
	n := len(p.Text) + len(p.Messages) + len(p.Context)
	for _, input := range p.Inputs {
		n += len(input)
	}
	return n
}

// Usage counts tokens as the backend reported them.
type Usage struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	TotalTokens      int `json:"total_tokens"`
}

// Output is what a succeeded task produced.
type Output struct {
	Text         string          `json:"text,omitempty"`          // the first choice's text
	FinishReason string          `json:"finish_reason,omitempty"` // stop, length, tool_calls, …
	Choices      json.RawMessage `json:"choices,omitempty"`       // the backend's choices when Text alone would lose something
	Embeddings   json.RawMessage `json:"embeddings,omitempty"`    // one array (or base64 string) per input
	Value        json.RawMessage `json:"value,omitempty"`         // a JSON batch backend's answer
}

// Size is how many bytes of content an output has.
func (o Output) Size() int {
	return len(o.Text) + len(o.Choices) + len(o.Embeddings) + len(o.Value)
}

// Attempt is one counted try, or one that was lost, as history for people.
type Attempt struct {
	N         int       `json:"n"` // from 1; a free requeue does not raise it
	Fence     string    `json:"fence,omitempty"`
	Worker    string    `json:"worker,omitempty"`
	Backend   string    `json:"backend,omitempty"`
	StartedAt time.Time `json:"started_at"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	Code      string    `json:"code,omitempty"`  // fault code; empty on success
	Class     string    `json:"class,omitempty"` // fault class
	Status    int       `json:"status,omitempty"`
	Message   string    `json:"message,omitempty"` // redacted, at most 512 bytes
}

// MaxHistory is how many attempts a record carries; older ones are dropped.
const MaxHistory = 10

// Progress is what a record's headers carry from hop to hop while its value
// stays untouched.
type Progress struct {
	Generation   uint8     // redrive generation, 0 at first
	Hop          uint16    // rises each time the record is published again
	Attempts     int       // counted attempts so far in this generation
	Losses       int       // claims without an outcome so far
	History      []Attempt // at most MaxHistory, oldest first
	FirstFailure time.Time // zero if none
	ReturnTopic  string    // on a retry tier: where the mover takes the record
	NotBefore    time.Time // wait left after the tier, by the broker's clock; zero: none
	RedriveJob   string    // the job that opened this generation
	Deadline     time.Time // replaces the task's own, as a redrive sets it; zero: the task's own holds
}

// Remember returns p with an attempt added to its history.
func (p Progress) Remember(a Attempt) Progress {
	h := append(append(make([]Attempt, 0, len(p.History)+1), p.History...), a)
	if len(h) > MaxHistory {
		h = h[len(h)-MaxHistory:]
	}
	p.History = h
	if p.FirstFailure.IsZero() && a.Code != "" {
		p.FirstFailure = a.EndedAt
	}
	return p
}
