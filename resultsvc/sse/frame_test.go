package sse

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// parsed is one frame as a client reads it, by the rules of the HTML standard.
type parsed struct{ id, event, data, retry string }

// parseStream splits on CR, LF and CRLF, as a strict client does.
func parseStream(s string) []parsed {
	var out []parsed
	var cur parsed
	fields := false
	s = strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
	for _, line := range strings.Split(s, "\n") {
		if line == "" {
			if fields {
				out = append(out, cur)
			}
			cur, fields = parsed{}, false
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		fields = fields || name != ""
		switch name {
		case "id":
			cur.id = value
		case "event":
			cur.event = value
		case "data":
			if cur.data != "" {
				cur.data += "\n"
			}
			cur.data += value
		case "retry":
			cur.retry = value
		}
	}
	return out
}

func FuzzFrame(f *testing.F) {
	f.Add("hello", "stop", uint64(256), uint64(1))
	f.Add("a\r\nb\rc\nd\x00e\u2028", "data: x\n\nid: 9\nevent: dead", uint64(1<<59), uint64(0))
	f.Add("\n\n", ":", uint64(0), uint64(1))
	f.Fuzz(func(t *testing.T, text, reason string, fence, seq uint64) {
		want := event.Event{
			ID: event.ID{Fence: event.Fence(fence), Seq: seq}, Type: event.Delta, TaskID: "task_x", Text: text, Reason: reason,
		}
		if _, err := event.ParseID(want.ID.String()); err != nil {
			t.Skip("an id that no event has")
		}
		e, err := eventlog.EntryOf(want)
		if err != nil {
			t.Fatal(err)
		}
		frames := parseStream(string(appendFrame(nil, e, want.ID.String())))
		if len(frames) != 1 || frames[0].id != want.ID.String() || frames[0].event != "delta" {
			t.Fatalf("read %d frames: %+v", len(frames), frames)
		}
		var got event.Event
		if err := json.Unmarshal([]byte(frames[0].data), &got); err != nil {
			t.Fatal(err)
		}
		again, _ := json.Marshal(want) // invalid UTF-8 is repaired on the way in
		var repaired event.Event
		if err := json.Unmarshal(again, &repaired); err != nil {
			t.Fatal(err)
		}
		if got.ID != want.ID || got.Text != repaired.Text || got.Reason != repaired.Reason {
			t.Errorf("got %+v, want %+v", got, repaired)
		}
	})
}

func FuzzFrameOfForeignData(f *testing.F) {
	f.Add([]byte(`{"type":"delta\n\nid: 1\n","task_id":"x"}`), "1-1")
	f.Add([]byte("{\r\n\"type\": \"x\"\n}\x00"), "a\nevent: dead")
	f.Add([]byte(`{}`), "")
	f.Add([]byte(`[1]`), "1-1")
	f.Add([]byte("{ "), "1-1")
	f.Fuzz(func(t *testing.T, data []byte, id string) {
		e := eventlog.Entry{ID: event.ID{Fence: 256, Seq: 7}, Data: data}
		frames := parseStream(string(appendFrame(nil, e, id)))
		if len(frames) != 1 {
			t.Fatalf("read %d frames: %+v", len(frames), frames)
		}
		if strings.Contains(frames[0].data, "\n") {
			t.Errorf("data has more than one line: %q", frames[0].data)
		}
		var got struct {
			ID event.ID `json:"id"`
		}
		if json.Valid(data) && json.Unmarshal([]byte(frames[0].data), &got) != nil {
			t.Errorf("valid JSON became invalid: %q", frames[0].data)
		}
	})
}

func TestGoodbye(t *testing.T) {
	frames := parseStream(string(appendReconnect(nil, 2500*time.Millisecond, "drain")))
	if len(frames) != 1 || frames[0] != (parsed{event: "reconnect", data: `{"type":"reconnect","reason":"drain"}`, retry: "2500"}) {
		t.Errorf("read %+v", frames)
	}
}

func TestCursorRoundTrip(t *testing.T) {
	minter, err := task.NewMinter(task.Secret{Key: []byte("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]task.ID, 1000)
	for i := range ids {
		ids[i] = minter.New("acme", time.Now())
	}
	c := newCursor(ids)
	want := map[task.ID]event.ID{}
	for i, id := range ids {
		want[id] = event.ID{}
		switch i % 4 {
		case 1:
			want[id] = event.QueuedID()
		case 2:
			want[id] = event.ID{Fence: event.Fence(256 * (i%9 + 1)), Seq: uint64(i)}
		case 3:
			want[id] = event.TerminalID(uint8(i % 2))
		}
		if want[id] != (event.ID{}) {
			c.advance(id, want[id])
		}
	}
	text := c.String()
	if len(text) > 2000 {
		t.Errorf("a cursor of 1000 tasks with 250 inside takes %d bytes", len(text))
	}
	for range 3 { // in any order
		ids = append(ids[500:], ids[:500]...)
		got, err := parseCursor(text, ids)
		if err != nil {
			t.Fatal(err)
		}
		open := map[task.ID]event.ID{}
		for _, w := range got.watches() {
			open[w.ID] = w.After
		}
		for id, at := range want {
			after, there := open[id]
			if there == at.Fence.Terminal() || (there && after != at) {
				t.Fatalf("%s: %v %v, want %v", id, there, after, at)
			}
		}
		if got.inside != c.inside || got.String() != text {
			t.Error("a parsed cursor is another")
		}
	}
	if _, err := parseCursor(text, ids[1:]); err == nil {
		t.Error("a cursor of other tasks was taken")
	}
}

func TestCursorIsBounded(t *testing.T) {
	ids := make([]task.ID, 1000)
	for i := range ids {
		ids[i] = task.ID("task_" + strings.Repeat("0", 40) + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676)))
	}
	c := newCursor(ids)
	for i, id := range ids {
		c.advance(id, event.ID{Fence: 1<<59 + event.Fence(i)<<20, Seq: 1<<40 + uint64(i)})
	}
	text := c.String()
	if len(text) > maxCursor {
		t.Fatalf("%d bytes", len(text))
	}
	got, err := parseCursor(text, ids)
	if err != nil {
		t.Fatal(err)
	}
	exact := 0
	for i, w := range got.watches() {
		switch w.After {
		case c.at[i]:
			exact++
		case event.QueuedID():
		default:
			t.Fatalf("task %d resumes after %s", i, w.After)
		}
	}
	if exact < 300 {
		t.Errorf("only %d positions fit", exact)
	}
}

func FuzzParseCursor(f *testing.F) {
	ids := []task.ID{"task_a", "task_b", "task_c"}
	c := newCursor(ids)
	c.advance("task_b", event.ID{Fence: 256, Seq: 3})
	f.Add(c.String())
	f.Add("")
	f.Add("AQ")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseCursor(text, ids)
		if err != nil {
			return
		}
		if again, err := parseCursor(got.String(), ids); err != nil || again.String() != got.String() {
			t.Errorf("%q does not survive: %v", text, err)
		}
	})
}
