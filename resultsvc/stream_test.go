package resultsvc_test

import (
	"bufio"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/resultsvc"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// A stream whose head was folded away begins with all of its text so far, and is
// resumed behind that like any other.
func TestALateJoinerGetsASnapshotOfWhatWasTrimmed(t *testing.T) {
	b := setup(t, onRedis(t))
	id := b.id()
	f, err := event.NewFence(0, 0, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	long := eventlog.New(b.rdb, eventlog.Params{Partitions: partitions, MaxLen: 4})
	if err := long.Claim(t.Context(), eventlog.Claim{ID: id, Fence: f, Attempt: 1}); err != nil {
		t.Fatal(err)
	}
	whole := ""
	for seq := uint64(1); seq <= 20; seq++ {
		e := event.Event{ID: event.ID{Fence: f, Seq: seq}, Type: event.Delta, TaskID: id, Text: strings.Repeat("x", int(seq)) + " "}
		if err := long.Append(t.Context(), []eventlog.Append{{ID: id, Events: []event.Event{e}}})[0]; err != nil {
			t.Fatal(err)
		}
		whole += e.Text
	}
	b.end(id, task.Succeeded, 0)
	b.await(id)
	path := "/v1/tasks/" + string(id) + "/events"
	text := func(got []frame) (out string, snapshots int) {
		for _, f := range got {
			switch e := f.decoded(t); e.Type {
			case event.Snapshot:
				out, snapshots = e.Text, snapshots+1
			case event.Delta:
				out += e.Text
			}
		}
		return out, snapshots
	}
	got, _ := frames(t, b.get(path).Body, -1)
	if said, n := text(got); said != whole || n != 1 {
		t.Errorf("%d snapshots, and the text is %q, want %q", n, said, whole)
	}
	for i, f := range got[:len(got)-1] {
		rest, _ := frames(t, b.get(path, "Last-Event-ID", f.id).Body, -1)
		if said, _ := text(append(got[:i+1:i+1], rest...)); said != whole {
			t.Errorf("resumed after frame %d: %q", i, said)
		}
	}
}

// TestEventsOverHTTP2 has many streams on one connection without TLS, of which
// one is cut, and the others drained.
func TestEventsOverHTTP2(t *testing.T) {
	b := setup(t, func(c *resultsvc.Config) { c.StreamHeartbeat = 20 * time.Millisecond })
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	b.http = &http.Client{Transport: &http.Transport{Protocols: protocols}}
	id := b.id()
	path := "/v1/tasks/" + string(id) + "/events"
	first := b.get(path)
	if first.ProtoMajor != 2 || first.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s %s", first.Proto, first.Header)
	}
	quiet := b.get("/v1/tasks/" + string(b.id()) + "/events")
	b.attempt(id, 1, 2)
	got, _ := frames(t, first.Body, 3)
	_ = first.Body.Close()
	b.end(id, task.Succeeded, 0)
	rest, _ := frames(t, b.get(path, "Last-Event-ID", got[2].id).Body, -1)
	if len(rest) != 2 || rest[1].event != "succeeded" {
		t.Errorf("resumed with %+v", rest)
	}
	lines := bufio.NewReader(quiet.Body)
	for beats := 0; beats < 3; {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == ": ping\n" {
			beats++
		}
	}
	var wg sync.WaitGroup
	wg.Go(b.drain)
	last, _ := frames(t, lines, -1)
	wg.Wait()
	if len(last) != 1 || last[0].event != "reconnect" {
		t.Errorf("the goodbye is %+v", last)
	}
}
