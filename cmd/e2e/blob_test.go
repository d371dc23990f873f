//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend/simulated"
)

// blobLimit is blob_max_bytes of the system in this test.
const blobLimit = 4 << 20

// TestLargePayloadsAndResults takes both ways of the claim check through real
// processes, up to every limit, and takes the store away in the middle.
func TestLargePayloadsAndResults(t *testing.T) {
	p := params(t)
	root := filepath.Join(t.TempDir(), "blobs")
	p.Env = []string{"PENSTOCK_BLOB_URL=file://" + root, "PENSTOCK_BLOB_MAX_BYTES=4MiB"}
	s := start(t, p)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()

	t.Run("the whole payload reaches the backend, by way of the store", func(t *testing.T) {
		text := strings.Repeat("a large payload, ", 64<<10)
		if got := submitAndSucceed(t, s, text); got.Output.Text != simulated.Text(text, 8) {
			t.Errorf("the answer %q is that to another prompt", got.Output.Text)
		}
		if n := len(blobsBelow(t, root)); n != 1 {
			t.Errorf("%d blobs in the store, want 1", n)
		}
	})
	t.Run("up to the limit and not beyond", func(t *testing.T) {
		const frame = len(`{"text":""}`)
		for size, want := range map[int]int{
			blobLimit - frame - 1: 0, blobLimit - frame: 0,
			blobLimit - frame + 1: http.StatusRequestEntityTooLarge, // of the store
			api.MaxBody:           http.StatusRequestEntityTooLarge, // of a body
		} {
			accepted, err := s.Client().Submit(ctx, prompt(strings.Repeat("x", size)), "")
			if client.StatusOf(err) != want || (want == 0) != (err == nil) {
				t.Errorf("%d bytes: %v, want %d", size, err, want)
				continue
			}
			if err == nil {
				if got, err := s.Client().Wait(ctx, accepted.TaskID); err != nil || got.Status != task.Succeeded {
					t.Errorf("%d bytes: %s, %v", size, got.Status, err)
				}
			}
		}
	})
	t.Run("a large result is read in full, by poll and by stream", func(t *testing.T) {
		accepted, err := s.Client().Submit(ctx, embeddings(api.MaxInputs), "")
		if err != nil {
			t.Fatal(err)
		}
		var streamed *task.Output
		err = s.Client().Tail(ctx, accepted.TaskID, event.ID{}, func(e event.Event) error {
			if e.Type == event.Succeeded {
				streamed = e.Result.Output
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		polled, err := s.Client().Wait(ctx, accepted.TaskID)
		if err != nil || polled.Output == nil || streamed == nil || string(polled.Output.Embeddings) != string(streamed.Embeddings) {
			t.Fatalf("poll and stream differ: %v", err)
		}
		var vectors []json.RawMessage
		if err := json.Unmarshal(polled.Output.Embeddings, &vectors); err != nil || len(vectors) != api.MaxInputs || polled.Output.Size() <= 256<<10 {
			t.Errorf("%d vectors in %d bytes, %v", len(vectors), polled.Output.Size(), err)
		}
	})
	t.Run("a store that goes away loses nothing", func(t *testing.T) {
		large := func(i int) api.SubmitRequest { return prompt(strings.Repeat("y", 300<<10+i)) }
		if err := s.Workers[0].Term(); err != nil {
			t.Fatal(err)
		}
		list := submitMany(t, s, 6, large)
		heal := takeAway(t, root)
		if err := s.Workers[0].Restart(ctx); err != nil {
			t.Fatal(err)
		}
		_, err := s.Client().Submit(ctx, large(100), "")
		if client.StatusOf(err) != http.StatusServiceUnavailable {
			t.Errorf("a large submit: %v, want 503", err)
		}
		submitAndSucceed(t, s, "small ones go on") // behind the large ones, in the same pool
		for _, id := range list {
			if got, err := s.Client().Task(ctx, id, 0); err != nil || got.Status.Terminal() {
				t.Errorf("%s is %s, %v", id, got.Status, err)
			}
		}
		heal()
		for id, got := range waitAll(t, s, list) {
			if got.Status != task.Succeeded || len(got.Attempts) != 1 {
				t.Errorf("%s is %s after %d attempts", id, got.Status, len(got.Attempts))
			}
		}
	})
	t.Run("a payload that is gone is a dead letter, and comes back by a redrive", func(t *testing.T) {
		if err := s.Workers[0].Term(); err != nil {
			t.Fatal(err)
		}
		before := blobsBelow(t, root)
		accepted, err := s.Client().Submit(ctx, prompt(strings.Repeat("z", 400<<10)), "")
		if err != nil {
			t.Fatal(err)
		}
		file := theNewOne(t, before, blobsBelow(t, root))
		if err := os.Rename(file, file+".lost"); err != nil {
			t.Fatal(err)
		}
		if err := s.Workers[0].Restart(ctx); err != nil {
			t.Fatal(err)
		}
		got, err := s.Client().Wait(ctx, accepted.TaskID)
		if err != nil || got.Status != task.Dead || got.Error == nil || got.Error.Code != fault.BlobLost {
			t.Fatalf("%s %+v, %v, want dead of blob_lost", got.Status, got.Error, err)
		}
		if err := os.Rename(file+".lost", file); err != nil {
			t.Fatal(err)
		}
		eventually(t, 20*time.Second, "the index has the dead letter", func() bool {
			_, err := s.Client().DeadLetter(ctx, accepted.TaskID)
			return err == nil
		})
		cli(t, s, "dlt", "redrive", string(accepted.TaskID), "--yes")
		revived(t, s, accepted.TaskID)
	})
}

// embeddings is a task of n small inputs and a large answer.
func embeddings(n int) api.SubmitRequest {
	inputs := make([]json.RawMessage, n)
	for i := range inputs {
		inputs[i] = json.RawMessage(`"word"`)
	}
	return api.SubmitRequest{Model: "sim-embed", Payload: task.Payload{Inputs: inputs}}
}

// takeAway puts a file in the store's place, until it is healed.
func takeAway(t *testing.T, root string) (heal func()) {
	t.Helper()
	if err := os.Rename(root, root+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(root); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(root+".away", root); err != nil {
			t.Fatal(err)
		}
	}
}

// blobsBelow lists the blobs of a store in a directory.
func blobsBelow(t *testing.T, root string) map[string]bool {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, "20*", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, f := range found {
		out[f] = true
	}
	return out
}

func theNewOne(t *testing.T, before, after map[string]bool) string {
	t.Helper()
	for f := range after {
		if !before[f] {
			return f
		}
	}
	t.Fatal("nothing was stored")
	return ""
}
