package wire_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/penstock/penstock/schema/conversation"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/webhook"
	"github.com/penstock/penstock/schema/wire"
)

// The files under testdata/v1 are the contract with every reader of our topics,
// in whatever language. A change of one is a change of the contract: add a file
// for what is new, and leave the old ones.
var update = flag.Bool("update", false, "write the golden files instead of comparing with them; refused in CI")

// golden is a record as a file: the value as JSON if it is JSON in its shortest
// form, else as text or base64 of its bytes.
type golden struct {
	Key         string          `json:"key"`
	Value       json.RawMessage `json:"value,omitempty"`
	ValueText   string          `json:"value_text,omitempty"`
	ValueBase64 []byte          `json:"value_base64,omitempty"`
	Headers     []goldenHeader  `json:"headers"`
}

type goldenHeader struct {
	Key    string `json:"key"`
	Value  string `json:"value,omitempty"`
	Base64 []byte `json:"base64,omitempty"`
}

func toGolden(t *testing.T, r wire.Record) []byte {
	t.Helper()
	g := golden{Key: string(r.Key)}
	var short bytes.Buffer
	switch {
	case json.Compact(&short, r.Value) == nil && bytes.Equal(short.Bytes(), r.Value):
		g.Value = r.Value
	case utf8.Valid(r.Value):
		g.ValueText = string(r.Value)
	default:
		g.ValueBase64 = r.Value
	}
	for _, h := range r.Headers {
		if printable(h.Value) {
			g.Headers = append(g.Headers, goldenHeader{Key: h.Key, Value: string(h.Value)})
		} else {
			g.Headers = append(g.Headers, goldenHeader{Key: h.Key, Base64: h.Value})
		}
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(g); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// printable keeps big-endian numbers, which may happen to be valid UTF-8, from
// being shown as control characters.
func printable(b []byte) bool {
	return utf8.Valid(b) && !bytes.ContainsFunc(b, func(r rune) bool { return r < ' ' })
}

func fromGolden(t testing.TB, file []byte) wire.Record {
	t.Helper()
	var g golden
	if err := json.Unmarshal(file, &g); err != nil {
		t.Fatal(err)
	}
	r := wire.Record{Key: []byte(g.Key), Value: append([]byte(g.ValueText), g.ValueBase64...)}
	if g.Value != nil {
		var short bytes.Buffer
		if err := json.Compact(&short, g.Value); err != nil {
			t.Fatal(err)
		}
		r.Value = short.Bytes()
	}
	for _, h := range g.Headers {
		r.Headers = append(r.Headers, wire.Header{Key: h.Key, Value: append([]byte(h.Value), h.Base64...)})
	}
	return r
}

// compareGolden compares a record with its file byte by byte, and returns the
// record as the file has it.
func compareGolden(t *testing.T, name string, r wire.Record) wire.Record {
	t.Helper()
	path := filepath.Join("testdata", "v1", name+".json")
	got := toGolden(t, r)
	if *update {
		if os.Getenv("CI") != "" {
			t.Fatal("-update is refused in CI: golden files are written by people and reviewed")
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("the record is not what %s says (-file +now):\n%s", path, diff)
	}
	frozen := fromGolden(t, want)
	if diff := cmp.Diff(r, frozen, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s does not hold every byte of the record (-now +file):\n%s", path, diff)
	}
	return frozen
}

func TestTaskRecordsAreAsPublished(t *testing.T) {
	for name, c := range map[string]struct {
		task     *task.Task
		progress task.Progress
		trace    string
	}{
		"task-first":      {chat(), task.Progress{}, traceparent},
		"task-smallest":   {embedding(), task.Progress{}, ""},
		"task-retry-tier": {chat(), waiting(), traceparent},
		"task-redriven":   {chat(), redriven(), ""},
		"task-claimcheck": {checked(), task.Progress{}, traceparent},
		"task-memory":     {remembering(), task.Progress{}, traceparent},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := wire.EncodeTask(c.task, c.progress, c.trace)
			if err != nil {
				t.Fatal(err)
			}
			gotTask, gotProgress, err := wire.DecodeTask(compareGolden(t, name, r))
			if err != nil {
				t.Fatal(err)
			}
			want := *c.task
			if !c.progress.Deadline.IsZero() {
				want.Deadline = c.progress.Deadline
			}
			if diff := cmp.Diff(&want, gotTask); diff != "" {
				t.Errorf("task (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.progress, gotProgress); diff != "" {
				t.Errorf("progress (-want +got):\n%s", diff)
			}
		})
	}
}

// A redrive renews the blob, and must not change the value.
func TestARenewedClaimCheckIsInTheHeaderAlone(t *testing.T) {
	first, err := wire.EncodeTask(checked(), task.Progress{}, "")
	if err != nil {
		t.Fatal(err)
	}
	renewed := checked()
	renewed.Payload.Ref.Key = "2026-04-12" + renewed.Payload.Ref.Key[10:]
	r, err := wire.Republish(first, renewed, redriven(), "")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(r.Value, first.Value) {
		t.Errorf("the value is another one: %s", r.Value)
	}
	frozen := compareGolden(t, "task-claimcheck-renewed", r)
	got, p, err := wire.DecodeTask(frozen)
	if err != nil || *got.Payload.Ref != *renewed.Payload.Ref {
		t.Fatalf("decoded %+v, %v, want the reference of the header", got.Payload.Ref, err)
	}
	again, err := wire.Republish(frozen, got, p, "")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(frozen, again); diff != "" {
		t.Errorf("the next hop lost something (-this +next):\n%s", diff)
	}
}

func TestAClaimCheckOfAPayloadThatIsThereChangesNothing(t *testing.T) {
	r, err := wire.EncodeTask(chat(), task.Progress{}, "")
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := wire.DecodeTask(with(r, wire.HeaderClaimCheck, "2026-03-14/ab/cd"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(chat(), got); diff != "" {
		t.Errorf("task (-want +got):\n%s", diff)
	}
}

func TestTerminalRecordsAreAsPublished(t *testing.T) {
	covered := map[task.Status]bool{}
	for name, end := range map[string]*terminal.Terminal{
		"terminal-succeeded":        succeeded(),
		"terminal-succeeded-stored": stored(),
		"terminal-claimcheck":       answered(),
		"terminal-claimcheck-cut":   answeredInPart(),
		"terminal-failed":           failed(),
		"terminal-cancelled":        anyGeneration(task.Cancelled, fault.Cancelled),
		"terminal-expired":          anyGeneration(task.Expired, fault.Expired),
		"terminal-dead":             dead(),
		"reopened":                  reopened(),
	} {
		covered[end.Status] = true
		t.Run(name, func(t *testing.T) {
			r, err := wire.EncodeTerminal(end, traceparent)
			if err != nil {
				t.Fatal(err)
			}
			got, err := wire.DecodeTerminal(compareGolden(t, name, r))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(end, got); diff != "" {
				t.Errorf("terminal (-want +got):\n%s", diff)
			}
		})
	}
	for _, s := range append(task.Statuses(), terminal.Reopened) {
		if (s.Terminal() || s == terminal.Reopened) && !covered[s] {
			t.Errorf("no golden file shows a terminal that is %s", s)
		}
	}
}

func TestDeadLettersAreAsPublished(t *testing.T) {
	exhausted, err := wire.EncodeTask(chat(), waiting(), traceparent)
	if err != nil {
		t.Fatal(err)
	}
	garbage := wire.Record{
		Key: []byte("key"), Value: []byte("\x00\xffno JSON"),
		Headers: []wire.Header{{Key: "x-by", Value: []byte{0xfe}}, {Key: "x-empty"}},
	}
	for name, original := range map[string]wire.Record{"deadletter-exhausted": exhausted, "deadletter-undecodable": garbage} {
		t.Run(name, func(t *testing.T) {
			want := letter(original.Value)
			if name == "deadletter-undecodable" {
				want = undecodable(original.Value)
			}
			r, err := wire.EncodeDeadLetter(original, want)
			if err != nil {
				t.Fatal(err)
			}
			frozen := compareGolden(t, name, r)
			got, err := wire.DecodeDeadLetter(frozen)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("letter (-want +got):\n%s", diff)
			}
			back := wire.Record{Key: frozen.Key, Value: frozen.Value, Headers: wire.OriginalHeaders(frozen)}
			if diff := cmp.Diff(original, back, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("the original record (-want +got):\n%s", diff)
			}
		})
	}
}

func TestControlRecordsAreAsPublished(t *testing.T) {
	r := wire.Control("job-7", []byte(`{"job":"job-7","state":"running"}`), accepted)
	frozen := compareGolden(t, "control", r)
	if kind, _ := frozen.Get(wire.HeaderType); kind != wire.TypeControl || string(frozen.Key) != "job-7" {
		t.Errorf("key %q, type %q", frozen.Key, kind)
	}
}

func TestWebhookRecordsAreAsPublished(t *testing.T) {
	covered := map[webhook.Step]bool{}
	for name, w := range hooks(t) {
		covered[w.Step] = true
		t.Run(name, func(t *testing.T) {
			r, err := wire.EncodeWebhook(w, traceparent)
			if err != nil {
				t.Fatal(err)
			}
			got, err := wire.DecodeWebhook(compareGolden(t, name, r))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(w, got); diff != "" {
				t.Errorf("record (-want +got):\n%s", diff)
			}
		})
	}
	for _, s := range webhook.Steps() {
		if !covered[s] {
			t.Errorf("no golden file shows a webhook that is %s", s)
		}
	}
}

func TestConversationRecordsAreAsPublished(t *testing.T) {
	covered := map[conversation.Step]bool{}
	for name, c := range conversations() {
		covered[c.Step] = true
		t.Run(name, func(t *testing.T) {
			r, err := wire.EncodeConversation(c, traceparent)
			if err != nil {
				t.Fatal(err)
			}
			got, err := wire.DecodeConversation(compareGolden(t, name, r))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c, got); diff != "" {
				t.Errorf("record (-want +got):\n%s", diff)
			}
		})
	}
	for _, s := range conversation.Steps() {
		if !covered[s] {
			t.Errorf("no golden file shows a conversation that is %s", s)
		}
	}
}

func TestNoGoldenFileIsForgotten(t *testing.T) {
	files, err := filepath.Glob("testdata/v1/*.json")
	if err != nil {
		t.Fatal(err)
	}
	const written = 33 // by the tests above
	if len(files) != written {
		t.Errorf("%d golden files, and the tests above compare %d", len(files), written)
	}
}
