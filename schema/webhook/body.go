package webhook

import (
	"fmt"
	"strings"
	"time"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// event is the body of a delivery whose subject is named, and read elsewhere.
type event[D any] struct {
	ID        string `json:"id"`
	Object    string `json:"object"`
	Type      string `json:"type"`
	CreatedAt int64  `json:"created_at"`
	Data      D      `json:"data"`
}

// ResponseData is the data of an event about a response: its id says all, for
// GET /v1/responses/{id} shows it.
type ResponseData struct {
	ID string `json:"id"` // resp_, and what follows task_ in the id of its task
}

// BatchData is the data of the event about a batch, as it ended.
type BatchData struct {
	ID            string            `json:"id"`
	Status        string            `json:"status"`
	Endpoint      string            `json:"endpoint"`
	InputFileID   string            `json:"input_file_id"`
	OutputFileID  string            `json:"output_file_id,omitempty"`
	ErrorFileID   string            `json:"error_file_id,omitempty"`
	RequestCounts BatchCounts       `json:"request_counts"`
	Metadata      map[string]string `json:"metadata,omitempty"`
}

// BatchCounts are the lines of a batch by what became of them.
type BatchCounts struct {
	Total     int `json:"total"`
	Completed int `json:"completed"`
	Failed    int `json:"failed"`
}

// BodyOf is what is delivered, in the form that was asked for, about the
// terminal which won a generation. statusURL is where the task can be read.
func BodyOf(f task.WebhookForm, t *terminal.Terminal, generation uint8, statusURL string) ([]byte, error) {
	if f != task.FormResponse {
		return NewEvent(t, generation, statusURL).Body()
	}
	_, text, _ := strings.Cut(string(t.TaskID), "_")
	return bodyOf(string(t.TaskID), generation, TypeOf(f, t), t.EndedAt, ResponseData{ID: "resp_" + text})
}

// BatchBody is what is delivered about a batch that ended.
func BatchBody(b BatchData, endedAt time.Time) ([]byte, error) {
	return bodyOf(b.ID, 0, BatchType(b.Status), endedAt, b)
}

func bodyOf[D any](subject string, generation uint8, kind string, at time.Time, data D) ([]byte, error) {
	body, err := encode(event[D]{ID: EventID(subject, generation), Object: objectEvent, Type: kind, CreatedAt: at.Unix(), Data: data})
	if err != nil {
		return nil, fmt.Errorf("encode webhook event: %w", err)
	}
	return body, nil
}
