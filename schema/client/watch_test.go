package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/schema/client"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// sse is the frame of an event, under an id of its own if one is given.
func sse(e event.Event, id ...string) string {
	raw, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	name := e.ID.String()
	if len(id) > 0 {
		name = id[0]
	}
	return fmt.Sprintf("id: %s\nevent: %s\ndata: %s\n\n", name, e.Type, raw)
}

func delta(id task.ID, seq uint64, text string) event.Event {
	return event.Event{ID: event.ID{Fence: 256, Seq: seq}, Type: event.Delta, TaskID: id, Text: text}
}

func ended(id task.ID) event.Event {
	return event.OfTerminal(&terminal.Terminal{TaskID: id, Status: task.Succeeded}, 0)
}

const reconnect = "retry: 3000\nevent: reconnect\ndata: {\"type\":\"reconnect\",\"reason\":\"drain\"}\n\n"

// connections answers each request with the next of its streams.
func connections(t *testing.T, seen *[]string, streams ...string) server {
	t.Helper()
	return func(r *http.Request) (*http.Response, error) {
		*seen = append(*seen, strings.Join(r.URL.Query()["task"], ",")+"after "+r.Header.Get("Last-Event-ID"))
		if len(*seen) > len(streams) {
			t.Errorf("connection %d was not expected", len(*seen))
			return answer(404, ""), nil
		}
		return answer(200, streams[len(*seen)-1], "Content-Type", "text/event-stream"), nil
	}
}

func collect(ctx context.Context, cl *client.Client, after event.ID) (got []string, err error) {
	for e, err := range cl.Watch(ctx, "task_1", after) {
		if err != nil {
			return got, err
		}
		got = append(got, string(e.Type)+" "+e.Text)
	}
	return got, nil
}

func TestAWatchGoesOnAfterItsLastEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []string
		began := time.Now()
		cl := open(t, connections(t, &seen,
			sse(delta("task_1", 1, "a"))+"id: 256-2\nevent: delta\ndata: {\"type\":\"del", // cut in the middle
			sse(delta("task_1", 1, "a"))+sse(delta("task_1", 2, "b"))+reconnect,           // a server may repeat
			": ping\n"+sse(delta("task_1", 3, "c"))+sse(ended("task_1")),
		))
		got, err := collect(t.Context(), cl, event.ID{})
		if diff := cmp.Diff([]string{"delta a", "delta b", "delta c", "succeeded "}, got); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
		if diff := cmp.Diff([]string{"after ", "after 256-1", "after 256-2"}, seen); diff != "" {
			t.Error(diff)
		}
		if took := time.Since(began); took < 3*time.Second || took > 5*time.Second {
			t.Errorf("took %s: the server asked for a pause of 3 s", took)
		}
	})
}

func TestAWatchOutlastsManyReconnectsWithoutNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []string
		streams := append(make([]string, 0, 21), sse(delta("task_1", 1, "a"))+reconnect)
		for i := range 19 {
			streams = append(streams, []string{reconnect, "retry: 1000\n\n"}[i%2])
		}
		cl := open(t, connections(t, &seen, append(streams, sse(ended("task_1")))...))
		if got, err := collect(t.Context(), cl, event.ID{}); len(got) != 2 || err != nil {
			t.Errorf("%v, %v", got, err)
		}
	})
}

func TestAWatchEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		server server
		after  event.ID
		check  func(error) bool
	}{
		"without an event where the terminal was seen": {
			server: func(*http.Request) (*http.Response, error) { return answer(204, ""), nil }, after: event.TerminalID(0),
			check: func(err error) bool { return err == nil },
		},
		"with an answer that will not change": {
			server: func(*http.Request) (*http.Response, error) { return refuse(410, fault.Gone), nil },
			check:  func(err error) bool { return client.StatusOf(err) == 410 },
		},
		"after too much trouble in a row": {
			server: func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") },
			check:  client.Temporary,
		},
		"with nonsense": {
			server: func(*http.Request) (*http.Response, error) { return answer(200, "data: nonsense\n\n"), nil },
			check:  func(err error) bool { return err != nil && !client.Temporary(err) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if _, err := collect(t.Context(), open(t, tc.server), tc.after); !tc.check(err) {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

func TestAWatchEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cl := open(t, func(r *http.Request) (*http.Response, error) {
			read, write := io.Pipe()
			context.AfterFunc(r.Context(), func() { _ = write.CloseWithError(r.Context().Err()) })
			return &http.Response{StatusCode: 200, Body: read}, nil
		})
		if _, err := collect(ctx, cl, event.ID{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}

func TestACallerMayHaveEnough(t *testing.T) {
	var seen []string
	cl := open(t, connections(t, &seen, sse(delta("task_1", 1, "a"))+sse(delta("task_1", 2, "b"))))
	n := 0
	for range cl.Watch(t.Context(), "task_1", event.ID{}) {
		n++
		break
	}
	if n != 1 || len(seen) != 1 {
		t.Errorf("%d events over %d connections", n, len(seen))
	}
}

func TestManyTasksAreWatchedUnderTheServersCursor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []string
		cl := open(t, connections(t, &seen,
			sse(delta("task_b", 1, "x"), "cursor-1")+sse(ended("task_a"), "cursor-2"),
			sse(delta("task_b", 1, "x"), "cursor-2")+sse(ended("task_b"), "cursor-3"),
		))
		var got []string
		for e, err := range cl.WatchMany(t.Context(), []task.ID{"task_b", "task_a"}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(e.TaskID)+" "+string(e.Type))
		}
		if diff := cmp.Diff([]string{"task_b delta", "task_a succeeded", "task_b succeeded"}, got); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"task_a,task_bafter ", "task_a,task_bafter cursor-2"}, seen); diff != "" {
			t.Error(diff)
		}
	})
}

func TestACursorThatIsRefusedIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []string
		cl := open(t, func(r *http.Request) (*http.Response, error) {
			asked = append(asked, strings.Join(r.URL.Query()["task"], ","))
			switch {
			case len(asked) == 1:
				return answer(200, sse(ended("task_a"), "cursor-1")), nil
			case r.Header.Get("Last-Event-ID") != "":
				return refuse(400, fault.Malformed), nil
			}
			return answer(200, sse(ended("task_b"), "cursor-9")), nil
		})
		for _, err := range cl.WatchMany(t.Context(), []task.ID{"task_a", "task_b"}) {
			if err != nil {
				t.Error(err)
			}
		}
		if diff := cmp.Diff([]string{"task_a,task_b", "task_a,task_b", "task_b"}, asked); diff != "" {
			t.Error(diff)
		}
	})
}

func TestTextIsTheAnswerWhateverHappenedOnTheWay(t *testing.T) {
	whole := func(text string) event.Event {
		return event.OfTerminal(&terminal.Terminal{TaskID: "task_1", Status: task.Succeeded, Output: &task.Output{Text: text}}, 0)
	}
	piece := func(kind event.Type, text string) event.Event { return event.Event{Type: kind, Text: text} }
	for name, tc := range map[string]struct {
		events []event.Event
		screen string // what somebody sees who does as Add says
	}{
		"pieces": {[]event.Event{piece(event.Delta, "deep "), piece(event.Delta, "blue"), whole("deep blue")}, "deep blue"},
		"an attempt that began anew": {
			[]event.Event{piece(event.Delta, "dark "), piece(event.Restart, ""), piece(event.Delta, "deep blue"), whole("deep blue")}, "<clear>deep blue",
		},
		"an end of another attempt": {
			[]event.Event{piece(event.Delta, "dark "), piece(event.Restart, "deep blue"), whole("deep blue")}, "<clear>deep blue",
		},
		"a snapshot for who comes late": {
			[]event.Event{piece(event.Snapshot, "deep "), piece(event.Delta, "blue"), whole("deep blue")}, "deep blue",
		},
		"a hole": {
			[]event.Event{piece(event.Delta, "deep "), {Type: event.Gap}, piece(event.Delta, "ue"), whole("deep blue")}, "<clear>deep blue",
		},
		"a hole at the end":   {[]event.Event{piece(event.Delta, "deep "), {Type: event.Gap}, whole("deep blue")}, "deep blue"},
		"nothing on the way":  {[]event.Event{{Type: event.Queued}, {Type: event.Started}, whole("deep blue")}, "deep blue"},
		"another choice than": {[]event.Event{piece(event.Delta, "deep blue"), {Type: event.Delta, Index: 1, Text: "red"}, whole("deep blue")}, "deep blue"},
	} {
		t.Run(name, func(t *testing.T) {
			var text client.Text
			screen := ""
			for i, e := range tc.events {
				if text.Whole() {
					t.Errorf("whole before event %d", i)
				}
				show, anew := text.Add(e)
				if anew {
					screen = "<clear>"
				}
				screen += show
			}
			if text.String() != "deep blue" || screen != tc.screen || !text.Whole() {
				t.Errorf("%q, on the screen %q", text.String(), screen)
			}
		})
	}
	t.Run("which a failed task has not", func(t *testing.T) {
		var text client.Text
		text.Add(piece(event.Delta, "deep "))
		text.Add(event.Event{Type: event.Gap})
		text.Add(event.OfTerminal(&terminal.Terminal{Status: task.Dead}, 0))
		if text.String() != "deep " || text.Whole() {
			t.Errorf("%q", text.String())
		}
	})
}
