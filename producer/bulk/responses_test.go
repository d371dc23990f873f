package bulk_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/producer/bulk"
	"github.com/penstock/penstock/producer/openai"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/spec"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

const responses = "/v1/responses"

func openAI(t *testing.T) bulk.OpenAI {
	t.Helper()
	p, err := openai.NewParser(spec.FS)
	if err != nil {
		t.Fatal(err)
	}
	return bulk.OpenAI{Parser: p}
}

func TestALineOfABatchCanBeAResponse(t *testing.T) {
	d := openAI(t)
	s, answer, err := d.Request(responses, []byte(`{"model":"m","input":"hi","max_output_tokens":3,"metadata":{"a":"b"}}`))
	if err != nil || !d.Serves(responses) {
		t.Fatal(err)
	}
	if s.Kind != task.Chat || s.Request.Model != "m" || string(s.Request.Payload.Messages) != `[{"role":"user","content":"hi"}]` || string(s.Request.Params["max_tokens"]) != "3" {
		t.Errorf("%+v", s.Request)
	}
	at := time.Unix(7, 0)
	got := answer(api.Task{TaskID: "task_1", Status: task.Succeeded, CreatedAt: &at, Output: &task.Output{Text: "hello", FinishReason: "stop"}})
	var body struct {
		ID       string
		Status   string
		At       int64 `json:"created_at"`
		Store    bool
		Metadata map[string]string
		Output   []struct{ Content []struct{ Text string } }
	}
	if err := json.Unmarshal(got.Body, &body); err != nil || got.Status != 200 || body.ID != "resp_1" || body.Status != "completed" || body.At != 7 || body.Store ||
		body.Metadata["a"] != "b" || body.Output[0].Content[0].Text != "hello" {
		t.Errorf("%d %v %s", got.Status, err, got.Body)
	}
	dead := answer(api.Task{TaskID: "task_1", Status: task.Dead, Error: &terminal.Error{Code: fault.Unavailable, Message: "no"}})
	if dead.Status != 503 || !strings.Contains(string(dead.Body), `"code":"unavailable"`) {
		t.Errorf("%d %s", dead.Status, dead.Body)
	}
}

func TestWhatALineCannotAskOfAResponseIsNamed(t *testing.T) {
	d := openAI(t)
	for body, path := range map[string]string{
		`{"model":"m","input":"hi","background":true}`:               "background",
		`{"model":"m","input":"hi","previous_response_id":"resp_1"}`: "previous_response_id",
		`{"model":"m"}`: "input",
	} {
		_, _, err := d.Request(responses, []byte(body))
		if bad, ok := errors.AsType[*validate.Error](err); !ok || bad.Path != path {
			t.Errorf("%s: %v", body, err)
		}
	}
	refusal := d.Refusal(responses, &validate.Error{Code: fault.TooLarge, Path: "payload.messages", Offset: -1, Reason: "is long"})
	if refusal.Status != 413 || !strings.Contains(string(refusal.Body), `"param":"input"`) {
		t.Errorf("%d %s", refusal.Status, refusal.Body)
	}
}
