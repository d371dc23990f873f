package resultsvc_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/resultsvc"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// withBlobs is a service with a store in a directory.
func withBlobs(t *testing.T) (b *bundle, root string, desk *claimcheck.Desk) {
	t.Helper()
	root = filepath.Join(t.TempDir(), "blobs")
	c := blob.DefaultConfig()
	c.URL = "file://" + root
	store, err := blob.New(c, blob.Params{Service: "test", Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return setup(t, func(cfg *resultsvc.Config) { cfg.Blob = c }), root, claimcheck.New(store, claimcheck.Params{})
}

// endLarge publishes a terminal whose output lies in the store.
func (b *bundle) endLarge(id task.ID, desk *claimcheck.Desk) *task.Ref {
	b.t.Helper()
	end := b.ended(id, task.Succeeded, 0)
	ref, err := desk.DepositOutput(b.t.Context(), &task.Output{Text: large, FinishReason: "stop"})
	if err != nil {
		b.t.Fatal(err)
	}
	end.Output, end.OutputRef = nil, ref
	if _, err := b.pub.Terminal(b.t.Context(), end); err != nil {
		b.t.Fatal(err)
	}
	return ref
}

var large = "line one\r\n<two>" + strings.Repeat("x", claimcheck.Inline)

func TestLargeResultsAreReadInFull(t *testing.T) {
	b, _, desk := withBlobs(t)
	id := b.id()
	watched := b.get("/v1/tasks/" + string(id) + "/events")
	defer watched.Body.Close()
	ref := b.endLarge(id, desk)
	b.await(id)

	t.Run("by a poll", func(t *testing.T) {
		var got api.Task
		status, _ := b.read("/v1/tasks/"+string(id), &got)
		if status != http.StatusOK || got.Status != task.Succeeded || got.Output == nil || got.Output.Text != large || got.Output.FinishReason != "stop" {
			t.Errorf("%d %s, output %t", status, got.Status, got.Output != nil)
		}
	})
	t.Run("by whoever watched", func(t *testing.T) {
		e := last(t, watched).decoded(t)
		if e.Type != event.Succeeded || e.Result.Output == nil || e.Result.Output.Text != large || e.Result.OutputRef != nil {
			t.Errorf("%s with output %t", e.Type, e.Result.Output != nil)
		}
	})
	t.Run("by who comes later, over one stream of many", func(t *testing.T) {
		res := b.get("/v1/events?task=" + string(id))
		defer res.Body.Close()
		if e := last(t, res).decoded(t); e.Result.Output == nil || e.Result.Output.Text != large {
			t.Errorf("%s without its output", e.Type)
		}
	})
	t.Run("while Redis holds the reference alone", func(t *testing.T) {
		found, err := b.store.Get(t.Context(), id)
		if err != nil || found.Terminal.Output != nil || *found.Terminal.OutputRef != *ref {
			t.Errorf("got %+v, %v", found.Terminal, err)
		}
	})
	t.Run("and a list has none of it", func(t *testing.T) {
		var page api.TaskList
		if status, _ := b.read("/v1/tasks", &page); status != http.StatusOK || len(page.Tasks) != 1 || page.Tasks[0].Output != nil {
			t.Errorf("%d %+v", status, page)
		}
	})
}

func TestALargeResultThatIsLostSaysSoBesideItsStatus(t *testing.T) {
	for name, harm := range map[string]func(file string) error{
		"gone":    os.Remove,
		"damaged": func(file string) error { return os.WriteFile(file, []byte(`{"text":"forged"}`), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			b, root, desk := withBlobs(t)
			id := b.id()
			if err := harm(filepath.Join(root, b.endLarge(id, desk).Key)); err != nil {
				t.Fatal(err)
			}
			b.await(id)
			var got api.Task
			status, _ := b.read("/v1/tasks/"+string(id), &got)
			if status != http.StatusOK || got.Status != task.Succeeded || got.Output != nil || got.Error == nil || got.Error.Code != fault.BlobLost {
				t.Errorf("poll: %d %+v", status, got)
			}
			res := b.get("/v1/tasks/" + string(id) + "/events")
			defer res.Body.Close()
			if e := last(t, res).decoded(t); e.Type != event.Succeeded || e.Result.Output != nil || e.Result.Error == nil || e.Result.Error.Code != fault.BlobLost {
				t.Errorf("stream: %+v", e)
			}
		})
	}
}

func TestALargeResultIsWaitedForWhileTheStoreIsAway(t *testing.T) {
	b, root, desk := withBlobs(t)
	id := b.id()
	b.endLarge(id, desk)
	b.await(id)
	if err := os.Rename(root, root+".away"); err != nil {
		t.Fatal(err)
	}
	status, envelope := b.read("/v1/tasks/"+string(id), nil)
	if status != http.StatusServiceUnavailable || envelope.Error.Type != fault.Unavailable {
		t.Errorf("poll: %d %+v", status, envelope)
	}
	res := b.get("/v1/tasks/" + string(id) + "/events")
	defer res.Body.Close()
	if f := last(t, res); f.event != string(event.Reconnect) || f.id != "" {
		t.Errorf("stream: %+v, want to be asked to come back for the same event", f)
	}
	if err := os.Rename(root+".away", root); err != nil {
		t.Fatal(err)
	}
	b.waitFor(func() bool {
		var got api.Task
		status, _ := b.read("/v1/tasks/"+string(id), &got)
		return status == http.StatusOK && got.Output != nil && got.Output.Text == large
	})
}

// last reads a stream to its end.
func last(t *testing.T, res *http.Response) frame {
	t.Helper()
	all, _ := frames(t, res.Body, -1)
	if len(all) == 0 {
		t.Fatal("a stream without a frame")
	}
	return all[len(all)-1]
}

// waitFor polls until a condition holds.
func (b *bundle) waitFor(holds func() bool) {
	b.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	for !holds() {
		select {
		case <-limit.C:
			b.t.Fatal("it never came to hold")
		case <-tick.C:
		}
	}
}
