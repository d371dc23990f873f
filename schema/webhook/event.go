package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// Event is the body of a delivery about a task, in the form of the OpenAI API's
// events, so that its clients can unwrap it.
type Event struct {
	ID        string `json:"id"`
	Object    string `json:"object"` // "event"
	Type      string `json:"type"`
	CreatedAt int64  `json:"created_at"` // seconds since 1970: when the task ended
	Data      Data   `json:"data"`
}

// Data is the task as it ended.
type Data struct {
	ID            task.ID           `json:"id"`
	Status        task.Status       `json:"status"`
	Generation    uint8             `json:"generation"`
	Model         string            `json:"model,omitempty"`
	Class         task.Class        `json:"class,omitempty"`
	Output        *task.Output      `json:"output,omitempty"`
	OutputOmitted bool              `json:"output_omitted,omitempty"` // it is large: read it at StatusURL
	Usage         *task.Usage       `json:"usage,omitempty"`
	Error         *terminal.Error   `json:"error,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
	CreatedAt     *time.Time        `json:"created_at,omitempty"`
	EndedAt       time.Time         `json:"ended_at"`
	StatusURL     string            `json:"status_url"`
}

const (
	objectEvent = "event"
	idPrefix    = "evt_"

	// MaxInline is the largest event, in bytes, that bears its task's output.
	MaxInline = 20 << 10
)

// EventID is the id of the event that tells how a generation of a task ended, or
// a batch, which has one. It is the same whoever computes it, so a delivery that
// two services make is one for its receiver.
func EventID[S ~string](subject S, generation uint8) string {
	_, text, _ := strings.Cut(string(subject), "_")
	return idPrefix + text + "_" + strconv.Itoa(int(generation))
}

// NewEvent returns the event that tells of the terminal which won a generation.
// statusURL is where the task can be read.
func NewEvent(t *terminal.Terminal, generation uint8, statusURL string) Event {
	e := Event{
		ID: EventID(t.TaskID, generation), Object: objectEvent, Type: TypeOf(task.FormTask, t), CreatedAt: t.EndedAt.Unix(),
		Data: Data{
			ID: t.TaskID, Status: t.Status, Generation: generation, Model: t.Model, Class: t.Class,
			Output: t.Output, OutputOmitted: t.OutputRef != nil, Usage: t.Usage, Error: t.Error, Labels: t.Labels,
			EndedAt: t.EndedAt, StatusURL: statusURL,
		},
	}
	if !t.CreatedAt.IsZero() {
		e.Data.CreatedAt = &t.CreatedAt
	}
	return e
}

// Body is the event as JSON. One that would be larger than MaxInline leaves the
// output out, and says so.
func (e Event) Body() ([]byte, error) {
	body, err := encode(e)
	if err == nil && len(body) > MaxInline && e.Data.Output != nil {
		e.Data.Output, e.Data.OutputOmitted = nil, true
		body, err = encode(e)
	}
	if err != nil {
		return nil, fmt.Errorf("encode webhook event: %w", err)
	}
	return body, nil
}

// encode writes JSON without the escapes meant for HTML, as records have it, so
// that a record holds the very bytes that are delivered.
func encode(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), err
}
