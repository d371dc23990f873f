package httpapi_test

import (
	"net/http"
	"testing"

	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

func TestALargeResultIsAnsweredInFull(t *testing.T) {
	b := setup(t, admit.Params{})
	b.winner = &terminal.Terminal{Status: task.Succeeded, OutputRef: &task.Ref{Key: "large"}}
	b.results.outputs = map[string]*task.Output{"large": {Text: "the whole answer"}}

	waited := b.post("/v1/inference", hello, "Prefer", "wait=5")
	if got := dataOf[api.Task](t, waited); waited.Code != http.StatusOK || got.Output == nil || got.Output.Text != "the whole answer" {
		t.Errorf("a waiting submit: %d %s", waited.Code, waited.Body)
	}
	cancelled := b.post("/v1/tasks/"+string(b.tasks[0].ID)+"/cancel", "")
	if got := dataOf[api.Task](t, cancelled); cancelled.Code != http.StatusOK || got.Output == nil || got.Output.Text != "the whole answer" {
		t.Errorf("a cancel that lost: %d %s", cancelled.Code, cancelled.Body)
	}
	if b.results.held != 0 {
		t.Errorf("%d results are held after their answers", b.results.held)
	}
}

func TestALargeResultThatCannotBeReadNow(t *testing.T) {
	b := setup(t, admit.Params{})
	b.winner = &terminal.Terminal{Status: task.Succeeded, OutputRef: &task.Ref{Key: "away"}}

	t.Run("leaves a waiting submit with its task id", func(t *testing.T) {
		w := b.post("/v1/inference", hello, "Prefer", "wait=5")
		if got := dataOf[api.Accepted](t, w); w.Code != http.StatusAccepted || got.TaskID != b.tasks[0].ID {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	})
	t.Run("lets a cancel be asked again", func(t *testing.T) {
		w := b.post("/v1/tasks/"+string(b.tasks[0].ID)+"/cancel", "")
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Errorf("got %d %v %s", w.Code, w.Header(), w.Body)
		}
	})
}
