package validate_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/spec"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/wire"
)

func published(t *testing.T) *validate.Set {
	t.Helper()
	set, err := validate.Compile(spec.FS)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func valid(t *testing.T, set *validate.Set, schema string, value []byte) error {
	t.Helper()
	s, err := set.Schema(schema)
	if err != nil {
		t.Fatal(err)
	}
	var read any
	return s.Decode(value, &read)
}

func TestFrozenRecordsFitThePublishedSchemas(t *testing.T) {
	set := published(t)
	files, err := filepath.Glob("../../schema/wire/testdata/v1/*.json")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d golden records, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		schema, _, _ := strings.Cut(name, "-")
		switch schema {
		case "reopened":
			schema = "terminal"
		case "deadletter":
			schema = "task" // the original bytes
		}
		if schema == "control" || name == "deadletter-undecodable" {
			continue // Penstock's own; and bytes that are no task by design
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var record struct{ Value json.RawMessage }
		if err := json.Unmarshal(raw, &record); err != nil {
			t.Fatal(err)
		}
		if err := valid(t, set, schema, record.Value); err != nil {
			t.Errorf("%s does not fit %s.schema.json: %v", name, schema, err)
		}
	}
}

func TestEveryEventFitsThePublishedSchema(t *testing.T) {
	set := published(t)
	minter, err := task.NewMinter(task.Secret{Key: []byte("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	id := minter.New("acme", now)
	events := []event.Event{
		{ID: event.QueuedID(), Type: event.Queued, TaskID: id},
		{ID: event.ID{Fence: 256}, Type: event.Started, TaskID: id, At: now, Attempt: 1},
		{ID: event.ID{Fence: 256, Seq: 1}, Type: event.Delta, TaskID: id, At: now, Text: "river", Index: 1},
		{ID: event.ID{Fence: 256, Seq: 2}, Type: event.UsageSeen, TaskID: id, Usage: &task.Usage{PromptTokens: 1, TotalTokens: 1}},
		{ID: event.ID{Fence: 257}, Type: event.Restart, TaskID: id, At: now, Attempt: 2, Reason: "the backend broke off"},
		{Type: event.Reconnect, Reason: "the server goes away"},
	}
	generation := uint8(3)
	for _, status := range []task.Status{task.Succeeded, task.Failed, task.Cancelled, task.Expired, task.Dead} {
		end := &terminal.Terminal{
			SchemaVersion: 1, TaskID: id, Status: status, Generation: &generation, Tenant: "acme", EndedAt: now,
			Error: &terminal.Error{Code: "unavailable", Message: "no answer"},
		}
		events = append(events, event.OfTerminal(end, generation))
	}
	for _, e := range events {
		raw, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if err := valid(t, set, "event", raw); err != nil {
			t.Errorf("%s: %v in %s", e.Type, err, raw)
		}
	}
	for name, bad := range map[string]string{
		"an unknown type":       `{"id":"1-0","type":"done","task_id":"` + string(id) + `"}`,
		"a number as id":        `{"id":1,"type":"delta","task_id":"` + string(id) + `"}`,
		"no task":               `{"id":"1-0","type":"delta"}`,
		"a terminal's nonsense": `{"id":"1-0","type":"dead","task_id":"` + string(id) + `","result":{"status":"dead"}}`,
	} {
		if valid(t, set, "event", []byte(bad)) == nil {
			t.Errorf("%s fits the schema", name)
		}
	}
}

func TestTheLineageOfADeadLetterFitsThePublishedSchema(t *testing.T) {
	set := published(t)
	raw, err := os.ReadFile("../../schema/wire/testdata/v1/deadletter-exhausted.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Headers []struct{ Key, Value, Base64 string }
	}
	if err := json.Unmarshal(raw, &golden); err != nil {
		t.Fatal(err)
	}
	rec := wire.Record{}
	for _, h := range golden.Headers {
		rec.Headers = append(rec.Headers, wire.Header{Key: h.Key, Value: []byte(h.Value)})
	}
	letter, err := wire.DecodeDeadLetter(rec)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(letter)
	if err != nil {
		t.Fatal(err)
	}
	if err := valid(t, set, "deadletter", text); err != nil {
		t.Errorf("%v in %s", err, text)
	}
}
