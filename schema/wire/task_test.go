package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/wire"
)

// value is the smallest task's JSON with members replaced or added; nil removes.
func value(t testing.TB, members map[string]any) []byte {
	t.Helper()
	raw, err := json.Marshal(embedding())
	if err != nil {
		t.Fatal(err)
	}
	return edit(t, raw, members)
}

func edit(t testing.TB, raw []byte, members map[string]any) []byte {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	for name, v := range members {
		all[name] = v
		if v == nil {
			delete(all, name)
		}
	}
	out, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestARecordThatIsNoTaskIsRefusedWithTheReason(t *testing.T) {
	structured := []wire.Header{{Key: wire.HeaderContentType, Value: []byte("application/cloudevents+json; charset=utf-8")}}
	header := func(name, v string) wire.Record {
		return wire.Record{Value: value(t, nil), Headers: []wire.Header{{Key: name, Value: []byte(v)}}}
	}
	changed := func(name string, v any) wire.Record { return wire.Record{Value: value(t, map[string]any{name: v})} }
	for name, c := range map[string]struct {
		record wire.Record
		says   string
	}{
		"no value":                        {wire.Record{}, "end of JSON"},
		"not JSON":                        {wire.Record{Value: []byte("hello")}, "invalid character"},
		"cut JSON":                        {wire.Record{Value: value(t, nil)[:40]}, "end of JSON"},
		"two values":                      {wire.Record{Value: append(value(t, nil), "{}"...)}, "after top-level"},
		"a list":                          {wire.Record{Value: []byte("[]")}, "cannot unmarshal"},
		"null":                            {wire.Record{Value: []byte("null")}, "schema version 0"},
		"an empty object":                 {wire.Record{Value: []byte("{}")}, "schema version 0"},
		"a later version":                 {changed("schema_version", 2), "schema version 2, want 1"},
		"no tenant":                       {changed("tenant", nil), "tenant"},
		"no model":                        {changed("model", ""), "model"},
		"no kind":                         {changed("kind", nil), "kind"},
		"no class":                        {changed("class", nil), "class"},
		"no timestamp":                    {changed("timestamp", nil), "timestamp"},
		"no deadline":                     {changed("deadline", nil), "deadline"},
		"a deadline that is no time":      {changed("deadline", "tomorrow"), "tomorrow"},
		"no payload":                      {changed("payload", nil), "payload"},
		"an empty payload":                {changed("payload", map[string]any{}), "payload"},
		"a payload of context alone":      {changed("payload", map[string]any{"context": 1}), "payload"},
		"null messages":                   {wire.Record{Value: bytes.Replace(value(t, nil), []byte(`"inputs":["one",[1,2,3]]`), []byte(`"messages":null`), 1)}, "payload"},
		"no inputs":                       {changed("payload", map[string]any{"inputs": []any{}}), "payload"},
		"no id":                           {changed("message_id", nil), "message_id"},
		"an id that is none":              {changed("message_id", strings.ToUpper(string(id))), "message_id"},
		"a structured event, cut":         {wire.Record{Value: []byte(`{"data":`), Headers: structured}, "structured CloudEvent"},
		"a structured event, no data":     {wire.Record{Value: []byte(`{"specversion":"1.0"}`), Headers: structured}, "end of JSON"},
		"a structured batch":              {wire.Record{Value: []byte(`[]`), Headers: []wire.Header{{Key: wire.HeaderContentType, Value: []byte("application/cloudevents-batch+json")}}}, "structured CloudEvent"},
		"a generation above 8 bits":       {header(wire.HeaderGeneration, "256"), wire.HeaderGeneration},
		"a negative generation":           {header(wire.HeaderGeneration, "-1"), wire.HeaderGeneration},
		"a hop above 12 bits":             {header(wire.HeaderHop, "4096"), wire.HeaderHop},
		"the hop of a terminal's fence":   {header(wire.HeaderHop, "4095"), wire.HeaderHop},
		"attempts in words":               {header(wire.HeaderAttempts, "two"), wire.HeaderAttempts},
		"no attempts in the header":       {header(wire.HeaderAttempts, ""), wire.HeaderAttempts},
		"attempts without end":            {header(wire.HeaderAttempts, "99999999999999999999"), wire.HeaderAttempts},
		"too many losses":                 {header(wire.HeaderLosses, "1048577"), wire.HeaderLosses},
		"a history that is not JSON":      {header(wire.HeaderHistory, "["), wire.HeaderHistory},
		"a first failure that is no time": {header(wire.HeaderFirstFailure, "0"), wire.HeaderFirstFailure},
		"a wait that is no time":          {header(wire.HeaderNotBefore, "soon"), wire.HeaderNotBefore},
		"a deadline past the last year":   {header(wire.HeaderDeadline, "9999-12-31T23:59:59-01:00"), wire.HeaderDeadline},
		"a wait before the first year":    {header(wire.HeaderNotBefore, "0000-01-01T00:00:00+01:00"), wire.HeaderNotBefore},
		"a new deadline that is no time":  {header(wire.HeaderDeadline, "later"), wire.HeaderDeadline},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := wire.DecodeTask(c.record)
			if !errors.Is(err, wire.ErrRecord) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("DecodeTask: %v, want ErrRecord about %q", err, c.says)
			}
		})
	}
	if got, _, err := wire.DecodeTask(wire.Record{Value: value(t, nil)}); err != nil {
		t.Errorf("the same value unchanged: %v, %v", got, err)
	}
}

func TestFieldsOfANewerWriterAreIgnored(t *testing.T) {
	r := wire.Record{
		Value:   value(t, map[string]any{"colour": "blue", "more": map[string]any{"deep": []int{1}}}),
		Headers: []wire.Header{{Key: "ce_colour", Value: []byte("blue")}, {Key: wire.HeaderHop, Value: []byte("3")}},
	}
	got, p, err := wire.DecodeTask(r)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(embedding(), got); diff != "" || p.Hop != 3 {
		t.Errorf("hop %d (-want +got):\n%s", p.Hop, diff)
	}
	end := edit(t, mustTerminal(t, succeeded()).Value, map[string]any{"colour": "blue"})
	back, err := wire.DecodeTerminal(wire.Record{Key: []byte(id), Value: end})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(succeeded(), back); diff != "" {
		t.Errorf("terminal (-want +got):\n%s", diff)
	}
}

// structuredOf puts a record's value into a whole CloudEvent.
func structuredOf(r wire.Record, contentType string) wire.Record {
	v := fmt.Appendf(nil, `{"specversion":"1.0","id":"1","source":"/elsewhere","type":%q,"data":%s}`, wire.TypeTask, r.Value)
	return wire.Record{Key: r.Key, Value: v, Headers: []wire.Header{{Key: wire.HeaderContentType, Value: []byte(contentType)}}}
}

func TestStructuredCloudEventsAreRead(t *testing.T) {
	for _, contentType := range []string{"application/cloudevents+json", "application/cloudevents", "Application/CloudEvents+JSON; charset=utf-8"} {
		t.Run(contentType, func(t *testing.T) {
			r := structuredOf(wire.Record{Key: []byte(id), Value: value(t, nil)}, contentType)
			got, _, err := wire.DecodeTask(r)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(embedding(), got); diff != "" {
				t.Errorf("task (-want +got):\n%s", diff)
			}
			end, err := wire.DecodeTerminal(structuredOf(mustTerminal(t, failed()), contentType))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(failed(), end); diff != "" {
				t.Errorf("terminal (-want +got):\n%s", diff)
			}
			hop, err := wire.Republish(r, got, task.Progress{Hop: 1}, "")
			if err != nil {
				t.Fatal(err)
			}
			again, p, err := wire.DecodeTask(hop)
			if err != nil || p.Hop != 1 {
				t.Fatalf("published again it reads as %v, %+v, %v", again, p, err)
			}
		})
	}
}

func TestPublishingAgainChangesOnlyTheProgress(t *testing.T) {
	// As another writer may have put it: spaces, an unknown field, another key.
	original := wire.Record{
		Key:     []byte("their key"),
		Value:   append([]byte("  "), value(t, map[string]any{"colour": "blue"})...),
		Headers: []wire.Header{{Key: wire.HeaderHop, Value: []byte("1")}, {Key: wire.HeaderNotBefore, Value: []byte("2026-03-14T08:00:00Z")}},
	}
	dead, err := wire.EncodeDeadLetter(original, letter(original.Value))
	if err != nil {
		t.Fatal(err)
	}
	tk, _, err := wire.DecodeTask(original)
	if err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string]wire.Record{"a record": original, "a dead letter": dead} {
		t.Run(name, func(t *testing.T) {
			before := clone(from)
			r, err := wire.Republish(from, tk, redriven(), traceparent)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(r.Key, original.Key) || !bytes.Equal(r.Value, original.Value) {
				t.Errorf("key %q and value %q are not the original bytes", r.Key, r.Value)
			}
			if diff := cmp.Diff(before, from); diff != "" {
				t.Errorf("the record given was changed:\n%s", diff)
			}
			_, p, err := wire.DecodeTask(r)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(redriven(), p); diff != "" {
				t.Errorf("progress: something of the old one is left (-want +got):\n%s", diff)
			}
			for i, h := range r.Headers {
				if strings.Contains(h.Key, "dlt") || slices.ContainsFunc(r.Headers[:i], func(o wire.Header) bool { return o.Key == h.Key }) {
					t.Errorf("header %s is of the death, or is there twice", h.Key)
				}
			}
		})
	}
}

func TestStrangersHeadersTravelWithTheTask(t *testing.T) {
	theirs := []wire.Header{
		{Key: "ce_colour", Value: []byte("blue")},
		{Key: "ce_dataschema", Value: []byte("https://example.org/s")},
		{Key: "x-twice", Value: []byte("1")},
		{Key: "x-twice", Value: []byte("2")},
		{Key: "x-empty"},
	}
	every := waiting() // every header that a task's record may bear
	every.Generation, every.RedriveJob, every.Deadline = 1, redriven().RedriveJob, redriven().Deadline
	r, err := wire.EncodeTask(embedding(), every, traceparent)
	if err != nil {
		t.Fatal(err)
	}
	written := len(r.Headers)
	r.Headers = append(slices.Clone(theirs), r.Headers...)
	for hop := range 3 {
		again, err := wire.Republish(r, embedding(), every, traceparent)
		if err != nil {
			t.Fatal(err)
		}
		if len(again.Headers) != written+len(theirs) {
			t.Fatalf("hop %d: %d headers, want %d of ours and %d of theirs: %v", hop, len(again.Headers), written, len(theirs), again.Headers)
		}
		if diff := cmp.Diff(theirs, again.Headers[written:]); diff != "" {
			t.Fatalf("hop %d (-want +got):\n%s", hop, diff)
		}
		r = again
	}
}

func clone(r wire.Record) wire.Record {
	out := wire.Record{Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value)}
	for _, h := range r.Headers {
		out.Headers = append(out.Headers, wire.Header{Key: h.Key, Value: bytes.Clone(h.Value)})
	}
	return out
}

func TestATaskIsKeyedByItsOrderingKey(t *testing.T) {
	for want, tk := range map[string]*task.Task{"s-1": chat(), string(id): embedding()} {
		r, err := wire.EncodeTask(tk, task.Progress{}, "")
		if err != nil || string(r.Key) != want {
			t.Errorf("key %q, %v, want %q", r.Key, err, want)
		}
		if _, ok := r.Get(wire.HeaderTraceparent); ok {
			t.Error("there is a traceparent although nobody traces")
		}
	}
}

func TestAPromptKeepsItsSize(t *testing.T) {
	tk := embedding()
	tk.Payload = task.Payload{Text: strings.Repeat("<&>", 10_000)}
	r, err := wire.EncodeTask(tk, task.Progress{}, "")
	if err != nil {
		t.Fatal(err)
	}
	if limit := len(tk.Payload.Text) + 1000; len(r.Value) > limit {
		t.Errorf("a prompt of %d bytes makes a record of %d", len(tk.Payload.Text), len(r.Value))
	}
}

func TestATaskThatIsNoJSONIsNotEncoded(t *testing.T) {
	tk := chat()
	tk.Payload.Messages = json.RawMessage("{")
	if r, err := wire.EncodeTask(tk, task.Progress{}, ""); err == nil {
		t.Errorf("encoded as %s", r.Value)
	}
	end := succeeded()
	end.Output.Choices = json.RawMessage("{")
	if r, err := wire.EncodeTerminal(end, ""); err == nil {
		t.Errorf("encoded as %s", r.Value)
	}
}

func TestTheFirstHeaderOfANameCounts(t *testing.T) {
	r := wire.Record{Headers: []wire.Header{{Key: "a", Value: []byte("1")}, {Key: "a", Value: []byte("2")}, {Key: "b"}}}
	for name, want := range map[string]string{"a": "1", "b": ""} {
		if got, ok := r.Get(name); !ok || got != want {
			t.Errorf("Get(%q) = %q, %t", name, got, ok)
		}
	}
	if got, ok := r.Get("A"); ok {
		t.Errorf("header names have a case in Kafka; Get(A) = %q", got)
	}
}

func TestALongMessageIsCutBetweenRunes(t *testing.T) {
	for _, unit := range []string{"a", "ä", "世", "🦆"} {
		for shift := range 4 {
			message := strings.Repeat("x", shift) + strings.Repeat(unit, deadletter.MaxMessage)
			l := letter(nil)
			l.Message = message
			r, err := wire.EncodeDeadLetter(wire.Record{}, l)
			if err != nil {
				t.Fatal(err)
			}
			got, err := wire.DecodeDeadLetter(r)
			if err != nil {
				t.Fatal(err)
			}
			most := shift + (deadletter.MaxMessage-shift)/len(unit)*len(unit)
			if !strings.HasPrefix(message, got.Message) || len(got.Message) != most {
				t.Errorf("%d × %q is cut to %d bytes, want %d: …%q", deadletter.MaxMessage, unit, len(got.Message), most, got.Message[len(got.Message)-5:])
			}
		}
	}
}
