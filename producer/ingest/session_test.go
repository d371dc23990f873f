package ingest_test

import (
	"encoding/json"
	"testing"

	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

func TestATaskThatRemembersIsAChatOfItsSession(t *testing.T) {
	for name, tc := range map[string]struct {
		payload task.Payload
		want    string
	}{
		"of messages": {task.Payload{Messages: json.RawMessage(`[{"role":"user","content":"hi"}]`)}, `[{"role":"user","content":"hi"}]`},
		"of a text, which a user says": {
			task.Payload{Text: `a <b> & "c"`, Context: json.RawMessage(`{"a":1}`)},
			`[{"role":"user","content":"a <b> & \"c\""}]`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.accept(t, submission(&api.SubmitRequest{Model: "only-chat", Payload: tc.payload, SessionID: "s-1", Memory: true}, ""))
			got := b.topics.tasks[0]
			if !got.Memory || got.Kind != task.Chat || got.OrderingKey != "session.s-1" || string(got.Payload.Messages) != tc.want || got.Payload.Text != "" ||
				string(got.Payload.Context) != string(tc.payload.Context) {
				t.Errorf("%+v: %s", got, got.Payload.Messages)
			}
		})
	}
}

func TestMemoryIsRefusedWhereThereIsNone(t *testing.T) {
	says := task.Payload{Text: "hi"}
	for want, r := range map[string]*api.SubmitRequest{
		"memory: needs a session_id: memory is a session's":                                            {Model: "only-chat", Payload: says},
		"ordering_key: may not be given with memory: a session that remembers has an order of its own": {Model: "only-chat", Payload: says, SessionID: "s", OrderingKey: "o"},
		"payload.inputs: cannot be remembered: give messages or a text":                                {Model: "chat", Payload: task.Payload{Inputs: []json.RawMessage{json.RawMessage(`"a"`)}}, SessionID: "s"},
		"payload.messages: model embed does embedding only":                                            {Model: "embed", Payload: says, SessionID: "s"},
	} {
		t.Run(want, func(t *testing.T) {
			b := setup(t)
			r.Memory = true
			_, err := b.intake.Accept(t.Context(), submission(r, ""))
			if err == nil || err.Error() != want || ingest.CodeOf(err) != fault.Malformed || len(b.topics.tasks) != 0 {
				t.Errorf("got %v and %d tasks", err, len(b.topics.tasks))
			}
		})
	}
}
