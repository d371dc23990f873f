package client_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/penstock/penstock/schema/client"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// A stream may break at any byte, any number of times; what the caller gets is
// the log of the task.
func TestAWatchThatIsCutAnywhereHasEveryEventOnce(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		pieces := rapid.SliceOfN(rapid.StringN(0, 8, 16), 1, 20).Draw(r, "pieces")
		seed := rapid.Uint64().Draw(r, "seed")
		synctest.Test(t, func(t *testing.T) {
			if said := watchCut(t, pieces, rand.New(rand.NewPCG(seed, 0))); said != "" {
				t.Error(said)
			}
		})
		if t.Failed() {
			r.Fatal("see above")
		}
	})
}

// watchCut watches a task of these pieces over connections that break, and says
// what is wrong with what came of it.
func watchCut(t *testing.T, pieces []string, chance *rand.Rand) string {
	log, whole := []event.Event{}, ""
	for i, p := range pieces {
		log, whole = append(log, delta("task_1", uint64(i+1), p)), whole+p
	}
	log = append(log, event.OfTerminal(&terminal.Terminal{
		TaskID: "task_1", Status: task.Succeeded, Output: &task.Output{Text: whole},
	}, 0))
	connections := 0
	cl := open(t, func(q *http.Request) (*http.Response, error) {
		rest, seen := "", q.Header.Get("Last-Event-ID")
		for _, e := range log {
			if after(seen, e) || e.ID.String() == seen && chance.IntN(2) == 0 { // a server may repeat
				rest += sse(e)
			}
		}
		if connections++; connections%4 != 0 { // a watch gives up where nothing ever comes
			rest = rest[:chance.IntN(len(rest)+1)]
		}
		return answer(200, rest), nil
	})
	var got []event.Event
	var text client.Text
	for e, err := range cl.Watch(t.Context(), "task_1", event.ID{}) {
		if err != nil {
			return err.Error()
		}
		got = append(got, e)
		text.Add(e)
	}
	diff := cmp.Diff(log, got)
	if diff == "" && text.String() == whole && text.Whole() {
		return ""
	}
	return fmt.Sprintf("over %d connections %q instead of %q %s", connections, text.String(), whole, diff)
}

// after reports that an event comes after the id that was seen last.
func after(seen string, e event.Event) bool {
	last, err := event.ParseID(seen)
	return err != nil || last.Less(e.ID)
}
