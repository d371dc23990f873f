package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, h http.HandlerFunc) *client.Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	cl, err := client.New(client.Config{API: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func frame(w http.ResponseWriter, e event.Event) {
	raw, _ := json.Marshal(e)
	fmt.Fprintf(w, "id: %s\nevent: %s\ndata: %s\n\n", e.ID, e.Type, raw)
}

func delta(id task.ID, seq uint64, text string) event.Event {
	return event.Event{ID: event.ID{Fence: 256, Seq: seq}, Type: event.Delta, TaskID: id, Text: text}
}

func ended(id task.ID) event.Event {
	return event.OfTerminal(&terminal.Terminal{TaskID: id, Status: task.Succeeded}, 0)
}

func TestTail(t *testing.T) {
	t.Run("resumes after the last id and hands over each event once", func(t *testing.T) {
		var resumed []string
		cl := open(t, func(w http.ResponseWriter, r *http.Request) {
			resumed = append(resumed, r.Header.Get("Last-Event-ID"))
			frame(w, delta("task_1", 1, "a"))
			if len(resumed) == 1 {
				return // the connection breaks
			}
			frame(w, delta("task_1", 2, "b"))
			frame(w, ended("task_1"))
		})
		var got []string
		err := cl.Tail(t.Context(), "task_1", event.ID{}, func(e event.Event) error {
			got = append(got, string(e.Type)+e.Text)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"deltaa", "deltab", "succeeded"}, got); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"", "256-1"}, resumed); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("is over when the server says that the terminal was seen", func(t *testing.T) {
		cl := open(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
		err := cl.Tail(t.Context(), "task_1", event.TerminalID(0), func(event.Event) error {
			t.Error("there was no event")
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("ends with the caller's error", func(t *testing.T) {
		cl := open(t, func(w http.ResponseWriter, _ *http.Request) { frame(w, ended("task_1")) })
		enough := errors.New("enough")
		if err := cl.Tail(t.Context(), "task_1", event.ID{}, func(event.Event) error { return enough }); !errors.Is(err, enough) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("does not retry an answer that will not change", func(t *testing.T) {
		var calls atomic.Int64
		cl := open(t, func(w http.ResponseWriter, _ *http.Request) {
			calls.Add(1)
			w.WriteHeader(http.StatusNotFound)
		})
		err := cl.Tail(t.Context(), "task_1", event.ID{}, func(event.Event) error { return nil })
		if client.StatusOf(err) != 404 || calls.Load() != 1 {
			t.Errorf("%v after %d calls", err, calls.Load())
		}
	})
	t.Run("ends with its context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cl := open(t, func(w http.ResponseWriter, r *http.Request) {
			frame(w, delta("task_1", 1, "a"))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})
		err := cl.Tail(ctx, "task_1", event.ID{}, func(event.Event) error { cancel(); return nil })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestTailManyAsksAgainOnlyForWhatIsOpen(t *testing.T) {
	var asked [][]string
	cl := open(t, func(w http.ResponseWriter, r *http.Request) {
		ids := r.URL.Query()["task"]
		asked = append(asked, ids)
		if len(asked) == 1 {
			frame(w, delta("task_b", 1, "x"))
			frame(w, ended("task_a"))
			return // the connection breaks
		}
		frame(w, delta("task_b", 1, "x"))
		frame(w, ended("task_b"))
	})
	var ends []task.ID
	deltas := 0
	err := cl.TailMany(t.Context(), []task.ID{"task_a", "task_b"}, func(e event.Event) error {
		if e.Type == event.Delta {
			deltas++
		}
		if e.Type.Terminal() {
			ends = append(ends, e.TaskID)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(ends, []task.ID{"task_a", "task_b"}) || deltas != 1 {
		t.Errorf("ends %v, %d deltas", ends, deltas)
	}
	if diff := cmp.Diff([][]string{{"task_a", "task_b"}, {"task_b"}}, asked); diff != "" {
		t.Error(diff)
	}
}

func TestMetricsSum(t *testing.T) {
	cl := open(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "# HELP x y\n# TYPE x counter\nx{a=\"1\",b=\"2\"} 3\nx{a=\"1\",b=\"3\"} 4e+00\nx{a=\"2\"} 8\nxy 16\n")
	})
	m, err := cl.Metrics(t.Context(), cl.API())
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Sum("x", `a="1"`); got != 7 {
		t.Errorf("sum is %v, want 7", got)
	}
}
