package api_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

func TestATerminalIsShownWhole(t *testing.T) {
	created := time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)
	ended := created.Add(time.Second)
	end := &terminal.Terminal{
		SchemaVersion: 1, TaskID: "task_1", Status: task.Dead, Tenant: "acme", Kind: task.Chat, Model: "m", Class: task.Bulk,
		Labels: map[string]string{"order": "17"}, Output: &task.Output{Text: "half"}, Usage: &task.Usage{TotalTokens: 3},
		Error:    &terminal.Error{Code: fault.Unavailable, Message: "gone", Status: 503},
		Attempts: []task.Attempt{{N: 1, Code: "unavailable"}}, CreatedAt: created, EndedAt: ended,
	}
	want := api.Task{
		TaskID: "task_1", Status: task.Dead, Generation: 2, Model: "m", Class: task.Bulk, Output: end.Output, Usage: end.Usage,
		Error: end.Error, Attempts: end.Attempts, Labels: end.Labels, CreatedAt: &created, EndedAt: &ended,
	}
	if diff := cmp.Diff(want, api.OfTerminal(end, 2)); diff != "" {
		t.Errorf("view (-want +got):\n%s", diff)
	}
}

func TestATerminalThatSaysLittleIsShownWithoutGuesses(t *testing.T) {
	end := &terminal.Terminal{TaskID: "task_1", Status: task.Cancelled, EndedAt: time.Unix(9, 0).UTC()}
	got, err := json.Marshal(api.OfTerminal(end, 0))
	want := `{"task_id":"task_1","status":"cancelled","generation":0,"attempts":[],"ended_at":"1970-01-01T00:00:09Z"}`
	if err != nil || string(got) != want {
		t.Errorf("view %s, %v, want %s: no made-up creation time, and an empty list of attempts", got, err, want)
	}
}

func TestAViewDoesNotShareTimesWithItsTerminal(t *testing.T) {
	end := &terminal.Terminal{TaskID: "task_1", Status: task.Failed, CreatedAt: time.Unix(1, 0), EndedAt: time.Unix(9, 0)}
	view := api.OfTerminal(end, 0)
	*view.CreatedAt, *view.EndedAt = time.Unix(2, 0), time.Unix(3, 0)
	if !end.CreatedAt.Equal(time.Unix(1, 0)) || !end.EndedAt.Equal(time.Unix(9, 0)) {
		t.Error("a change of the view changed the record")
	}
}
