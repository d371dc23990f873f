package webhook

import (
	"encoding/json"
	"slices"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

const (
	taskPrefix     = "task."
	responsePrefix = "response."
	batchPrefix    = "batch."
)

// Types of the events about responses, as the OpenAI API has them.
const (
	ResponseCompleted  = responsePrefix + "completed"
	ResponseFailed     = responsePrefix + "failed"
	ResponseCancelled  = responsePrefix + "cancelled"
	ResponseIncomplete = responsePrefix + "incomplete" // cut by a limit, or by a filter
)

// Types returns the type of every event that a task of a form can have.
func Types(f task.WebhookForm) []string {
	if f == task.FormResponse {
		return []string{ResponseCompleted, ResponseFailed, ResponseCancelled, ResponseIncomplete}
	}
	var out []string
	for _, s := range task.Statuses() {
		if s.Terminal() {
			out = append(out, taskPrefix+string(s))
		}
	}
	return out
}

// BatchTypes returns the type of every event that a batch can have, as the
// OpenAI API has them.
func BatchTypes() []string {
	return []string{batchPrefix + "completed", batchPrefix + "failed", batchPrefix + "expired", batchPrefix + "cancelled"}
}

// BatchType is the type of the event that tells of a batch's end, by its status.
func BatchType(status string) string { return batchPrefix + status }

// TypeOf is the type of the event that tells of a terminal to whoever asked in a
// form.
func TypeOf(f task.WebhookForm, t *terminal.Terminal) string {
	if f != task.FormResponse {
		return taskPrefix + string(t.Status)
	}
	switch {
	case t.Status == task.Cancelled:
		return ResponseCancelled
	case t.Status != task.Succeeded:
		return ResponseFailed
	case cut(t.Finish()):
		return ResponseIncomplete
	}
	return ResponseCompleted
}

// cut reports whether an answer ended before it was whole.
func cut(finishReason string) bool {
	return finishReason == "length" || finishReason == "content_filter"
}

// typeOfEvent reads the type of a body that is to be delivered.
func typeOfEvent(body []byte) string {
	var e struct {
		Type string `json:"type"`
	}
	_ = json.Unmarshal(body, &e) // one without a type has none to show
	return e.Type
}

// Wants reports whether a webhook asks for events of a type: one that names
// none asks for all.
func Wants(w *task.Webhook, kind string) bool {
	return len(w.Events) == 0 || slices.Contains(w.Events, kind)
}
