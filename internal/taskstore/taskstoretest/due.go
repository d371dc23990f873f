package taskstoretest

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// waits hints a task that ends at a deadline.
func (b bundle) waits(t *testing.T, id task.ID, s task.Status, generation uint8, deadline time.Time) taskstore.Due {
	t.Helper()
	h := taskstore.Hint{ID: id, Tenant: tenant, Status: s, Generation: generation, Deadline: deadline}
	if err := b.store.Hint(t.Context(), []taskstore.Hint{h}); err != nil {
		t.Fatal(err)
	}
	return taskstore.Due{ID: id, Tenant: tenant, Generation: generation}
}

// due takes what is due before a time and checks that it is this.
func (b bundle) due(t *testing.T, before time.Time, want ...taskstore.Due) {
	t.Helper()
	got, err := b.store.Due(t.Context(), before, b.now.Add(time.Hour), 10)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("due before %s (-want +got):\n%s", before, diff)
	}
}

func dues(t *testing.T, open Open) {
	at := func(b bundle, minute int) time.Time { return b.now.Add(time.Duration(minute) * time.Minute) }
	t.Run("by deadline, and what was taken comes back later", func(t *testing.T) {
		b := setup(t, open, taskstore.Params{Partitions: only})
		late := b.waits(t, b.id(), task.Queued, 0, at(b, 2))
		soon := b.waits(t, b.id(), task.Queued, 0, at(b, 1))
		b.due(t, at(b, 0))
		b.due(t, at(b, 5), soon, late)
		b.due(t, at(b, 5))
		if err := b.store.DropDue(t.Context(), []taskstore.Due{soon}); err != nil {
			t.Fatal(err)
		}
		b.due(t, at(b, 61), late)
	})
	t.Run("what is postponed stays where it is, and what left does not return", func(t *testing.T) {
		b := setup(t, open, taskstore.Params{Partitions: only})
		id, ended := b.id(), b.id()
		d := b.waits(t, id, task.Queued, 0, at(b, 1))
		gone := b.waits(t, ended, task.Queued, 0, at(b, 1))
		b.apply(t, 0, b.ended(ended, task.Expired, 0))
		if err := b.store.PostponeDue(t.Context(), []taskstore.Due{d, gone}, at(b, 20)); err != nil {
			t.Fatal(err)
		}
		b.waits(t, id, task.Queued, 0, at(b, 1))
		b.due(t, at(b, 5))
		b.due(t, at(b, 21), d)
	})
	t.Run("at most so many of a partition", func(t *testing.T) {
		b := setup(t, open, taskstore.Params{Partitions: only})
		for range 15 {
			b.waits(t, b.id(), task.Queued, 0, at(b, 1))
		}
		for _, want := range []int{10, 5, 0} {
			if got, err := b.store.Due(t.Context(), at(b, 5), at(b, 60), 10); err != nil || len(got) != want {
				t.Errorf("%d due, %v; want %d", len(got), err, want)
			}
		}
	})
	t.Run("a task that ended is out, and stays out", func(t *testing.T) {
		b := setup(t, open, taskstore.Params{Partitions: only})
		id := b.id()
		b.waits(t, id, task.Queued, 0, at(b, 1))
		b.apply(t, 0, b.ended(id, task.Succeeded, 0))
		b.due(t, at(b, 5))
		b.waits(t, id, task.Queued, 0, at(b, 1)) // an older record of it is scanned
		b.due(t, at(b, 5))
	})
	t.Run("a redriven task is due by its new deadline", func(t *testing.T) {
		b := setup(t, open, taskstore.Params{Partitions: only})
		id := b.id()
		b.waits(t, id, task.Queued, 0, at(b, 1))
		b.apply(t, 0, b.ended(id, task.Dead, 0), b.ended(id, terminal.Reopened, 1))
		b.waits(t, id, task.Queued, 0, at(b, 1)) // the record that died
		b.due(t, at(b, 5))
		again := b.waits(t, id, task.Queued, 1, at(b, 7))
		b.due(t, at(b, 5))
		b.due(t, at(b, 8), again)
	})
	t.Run("a task that runs is due too, whoever said so first", func(t *testing.T) {
		b := setup(t, open, taskstore.Params{Partitions: only})
		id := b.id()
		b.waits(t, id, task.Running, 0, time.Time{})
		b.due(t, at(b, 5))
		want := b.waits(t, id, task.Queued, 0, at(b, 1)) // stale as a hint
		b.due(t, at(b, 5), want)
	})
}

func scans(t *testing.T, open Open) {
	b := setup(t, open, taskstore.Params{Partitions: 3})
	place := taskstore.Place{Topic: "penstock.tasks.default.bulk", Partition: 11}
	scan := func() taskstore.Scan {
		t.Helper()
		s, err := b.store.Scan(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	note := func(s taskstore.Scan, offset int64) error {
		return b.store.SetScanned(t.Context(), s, map[taskstore.Place]int64{place: offset})
	}
	for name, lose := range map[string]func() error{
		"everything":      func() error { return b.rdb.FlushDB(t.Context()).Err() },
		"the positions":   func() error { return b.rdb.Del(t.Context(), rediskey.Scan).Err() },
		"one partition's": func() error { return b.rdb.Del(t.Context(), rediskey.Indexed(2)).Err() },
	} {
		t.Run(name, func(t *testing.T) {
			first := scan()
			if err := note(first, 5); err != nil {
				t.Fatal(err)
			}
			if got := scan(); got.At[place] != 5 {
				t.Fatalf("stands at %v", got.At)
			}
			if err := lose(); err != nil {
				t.Fatal(err)
			}
			if got := scan(); len(got.At) != 0 {
				t.Errorf("goes on at %v after the loss", got.At)
			}
			if err := note(first, 9); !errors.Is(err, taskstore.ErrScanLost) {
				t.Errorf("the scan from before the loss goes on: %v", err)
			}
		})
	}
	for _, want := range []bool{true, false} {
		if got, err := b.store.LeaseScan(t.Context(), time.Minute); err != nil || got != want {
			t.Errorf("lease %t, %v; want %t", got, err, want)
		}
	}
}
