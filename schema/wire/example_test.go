package wire_test

import (
	"fmt"
	"time"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/wire"
)

// A task's record is plain JSON with `ce_*` headers: any Kafka client can carry
// it, and any reader understand it.
func ExampleEncodeTask() {
	accepted := time.Date(2026, 3, 14, 8, 0, 0, 0, time.UTC)
	record, err := wire.EncodeTask(&task.Task{
		SchemaVersion: task.SchemaVersion, ID: "task_06eej948000ui6eipa8t38tsq3o4hnf467b19nog4sg5du0u", Kind: task.Completion,
		Source: task.SourceAPI, Tenant: "acme", Model: "sim-chat", Class: task.Standard,
		Payload: task.Payload{Text: "Why is the sky blue?"}, Timestamp: accepted, Deadline: accepted.Add(24 * time.Hour),
	}, task.Progress{}, "")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("key %s\n", record.Key)
	for _, h := range record.Headers[:5] {
		fmt.Printf("%s: %s\n", h.Key, h.Value)
	}
	read, progress, err := wire.DecodeTask(record)
	fmt.Println(read.Payload.Text, progress.Generation, progress.Hop, err)
	// Output:
	// key task_06eej948000ui6eipa8t38tsq3o4hnf467b19nog4sg5du0u
	// ce_specversion: 1.0
	// ce_id: task_06eej948000ui6eipa8t38tsq3o4hnf467b19nog4sg5du0u
	// ce_type: io.penstock.task.v1
	// ce_source: /penstock/api
	// ce_subject: sim-chat
	// Why is the sky blue? 0 0 <nil>
}

// A reader of `penstock.results` decodes each record and folds it into what it
// knows of the task.
func ExampleDecodeTerminal() {
	record := wire.Record{
		Key:   []byte("task_1"),
		Value: []byte(`{"schema_version":1,"task_id":"task_1","status":"succeeded","tenant":"acme","output":{"text":"Rayleigh."},"ended_at":"2026-03-14T08:00:02Z"}`),
	}
	end, err := wire.DecodeTerminal(record)
	if err != nil {
		fmt.Println(err)
		return
	}
	state, won := terminal.State{}.Apply(end, 41)
	fmt.Println(state.Status, won, end.Output.Text)
	// Output: succeeded true Rayleigh.
}

// Where a task was given up stands in the headers of its dead letter.
func ExampleDecodeDeadLetter() {
	record := wire.Record{Value: []byte("the original bytes"), Headers: []wire.Header{
		{Key: wire.HeaderDLDisposition, Value: []byte("exhausted")},
		{Key: wire.HeaderDLCode, Value: []byte("timeout")},
		{Key: wire.HeaderDLAttempts, Value: []byte("5")},
		{Key: wire.HeaderDLTopic, Value: []byte("penstock.tasks.default.bulk")},
	}}
	letter, err := wire.DecodeDeadLetter(record)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(letter.Disposition, letter.Code, letter.Attempts, letter.Origin.Topic)
	// Output: exhausted timeout 5 penstock.tasks.default.bulk
}
