package wire_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/wire"
)

func mustTerminal(t testing.TB, end *terminal.Terminal) wire.Record {
	t.Helper()
	r, err := wire.EncodeTerminal(end, "")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestARecordThatIsNoTerminalIsRefusedWithTheReason(t *testing.T) {
	changed := func(name string, v any) wire.Record {
		r := mustTerminal(t, failed())
		r.Value = edit(t, r.Value, map[string]any{name: v})
		return r
	}
	for name, c := range map[string]struct {
		record wire.Record
		says   string
	}{
		"no value":                  {wire.Record{Key: []byte(id)}, "end of JSON"},
		"not JSON":                  {wire.Record{Key: []byte(id), Value: []byte("hello")}, "invalid character"},
		"a list":                    {wire.Record{Key: []byte(id), Value: []byte("[]")}, "cannot unmarshal"},
		"a later version":           {changed("schema_version", 2), "schema version 2, want 1"},
		"no version":                {changed("schema_version", nil), "schema version 0"},
		"no status":                 {changed("status", nil), `status ""`},
		"a state that ends nothing": {changed("status", "running"), `status "running"`},
		"an unknown status":         {changed("status", "done"), `status "done"`},
		"a generation above 8 bits": {changed("generation", 256), "generation"},
		"a negative generation":     {changed("generation", -1), "generation"},
		"another task's key":        {changed("task_id", "task_other"), "key and task_id differ"},
		"no task id":                {changed("task_id", nil), "key and task_id differ"},
		"a structured event, cut":   {with(wire.Record{Key: []byte(id), Value: []byte("{")}, wire.HeaderContentType, "application/cloudevents+json"), "structured CloudEvent"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := wire.DecodeTerminal(c.record)
			if got != nil || !errors.Is(err, wire.ErrRecord) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("DecodeTerminal = %v, %v, want ErrRecord about %q", got, err, c.says)
			}
		})
	}
}

func TestTerminalsOfOneTaskHaveDifferentEventIDs(t *testing.T) {
	again := dead()
	g := uint8(1)
	again.Generation = &g
	seen := map[string]task.Status{}
	for _, end := range []*terminal.Terminal{succeeded(), dead(), again, reopened(), anyGeneration(task.Cancelled, "cancelled")} {
		ce, _ := mustTerminal(t, end).Get(wire.HeaderID)
		if other, twice := seen[ce]; twice || !strings.HasPrefix(ce, string(id)) {
			t.Errorf("%s has ce_id %q, as has %q", end.Status, ce, other)
		}
		seen[ce] = end.Status
	}
}
