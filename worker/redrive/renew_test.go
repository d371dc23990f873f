package redrive_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/redrive"
)

const month = 30 * 24 * time.Hour

// blobs is a store in a directory, which it returns.
func blobs(t *testing.T) (root string, s *blob.Store) {
	t.Helper()
	root = filepath.Join(t.TempDir(), "blobs")
	s, err := blob.New(blob.Config{URL: "file://" + root}, blob.Params{Service: "test", Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return root, s
}

func TestARedriveRenewsThePayload(t *testing.T) {
	_, store := blobs(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		old, err := store.Put(t.Context(), strings.NewReader(`{"text":"large"}`), 100)
		if err != nil {
			t.Fatal(err)
		}
		id, ref := w.die(t, death{ref: &old})
		original := w.letters[ref.Partition][ref.Offset].Record
		pass(month - time.Hour)
		r := w.start(t, "a", nil, func(p *redrive.Params) { p.Blobs = store })
		pass(time.Second)
		j := r.redrive(everything)
		if j = r.until(j.ID, time.Minute, redrive.JobCompleted); j.Redriven != 1 {
			t.Fatalf("job = %+v", j)
		}
		got := w.tasks[id][0]
		if young := got.task.Payload.Ref; young.SHA256 != old.SHA256 || young.Key == old.Key || string(got.record.Value) != string(original.Value) {
			t.Errorf("published with %+v, want a younger reference to the same content, and the same value", young)
		}
		pass(month) // the old day is swept, and the task may die once more
		if _, err := store.Sweep(t.Context(), month); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Bytes(t.Context(), old, 100); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("the old reference: %v, want it swept", err)
		}
		if text, err := store.Bytes(t.Context(), *got.task.Payload.Ref, 100); err != nil || string(text) != `{"text":"large"}` {
			t.Errorf("the new reference: %q, %v", text, err)
		}
	})
}

func TestALetterWhosePayloadIsLostIsSkipped(t *testing.T) {
	root, store := blobs(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		lost, err := store.Put(t.Context(), strings.NewReader("lost"), 100)
		if err != nil {
			t.Fatal(err)
		}
		id, _ := w.die(t, death{ref: &lost})
		w.die(t, death{})
		if err := os.Remove(filepath.Join(root, lost.Key)); err != nil {
			t.Fatal(err)
		}
		pass(48 * time.Hour)
		r := w.start(t, "a", nil, func(p *redrive.Params) { p.Blobs = store })
		pass(time.Second)
		j := r.redrive(everything)
		if j = r.until(j.ID, time.Minute, redrive.JobCompleted); j.Redriven != 1 || j.Skipped != 1 || j.SkippedFor[redrive.ReasonPayloadLost] != 1 {
			t.Errorf("job = %+v", j)
		}
		if s, _ := w.truth(id); s.Status != task.Dead || s.Generation != 0 {
			t.Errorf("state = %+v, want it left dead", s)
		}
	})
}

func TestAJobWaitsForTheStoreOfItsPayloads(t *testing.T) {
	root, store := blobs(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		old, err := store.Put(t.Context(), strings.NewReader("large"), 100)
		if err != nil {
			t.Fatal(err)
		}
		id, _ := w.die(t, death{ref: &old})
		pass(48 * time.Hour)
		if err := os.Rename(root, root+".away"); err != nil {
			t.Fatal(err)
		}
		r := w.start(t, "a", nil, func(p *redrive.Params) { p.Blobs = store })
		pass(time.Second)
		j := r.redrive(everything)
		j = r.until(j.ID, 5*time.Minute, redrive.JobPaused)
		if s, _ := w.truth(id); s.Generation != 0 {
			t.Errorf("state = %+v, want nothing begun", s)
		}
		if err := os.Rename(root+".away", root); err != nil {
			t.Fatal(err)
		}
		r.do("POST", "/admin/v1/redrives/"+j.ID+"/resume", "", nil)
		if j = r.until(j.ID, time.Minute, redrive.JobCompleted); j.Redriven != 1 || len(w.tasks[id]) != 1 {
			t.Errorf("job = %+v", j)
		}
	})
}
