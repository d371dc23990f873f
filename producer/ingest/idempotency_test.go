package ingest_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

func keyed(body string) ingest.Submission {
	return ingest.Submission{Tenant: "acme", Request: text("chat", "a"), Key: "k-1", Body: []byte(body)}
}

func TestARepeatGetsTheSameIDAndNoSecondRecord(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first, err := b.intake.Accept(t.Context(), keyed(`{"a":1,"b":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{`{"a":1,"b":"x"}`, `{ "b":"\u0078", "a":1 }`} {
		again, err := b.intake.Accept(t.Context(), keyed(body))
		if err != nil || again.ID != first.ID || !again.Repeat {
			t.Errorf("%s: got %+v, %v", body, again, err)
		}
	}
	if n := len(b.topics.tasks); n != 1 {
		t.Errorf("%d records for one key", n)
	}
}

func TestAnotherBodyUnderTheKeyIsAConflict(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if _, err := b.intake.Accept(t.Context(), keyed(`{"seed":9007199254740992}`)); err != nil {
		t.Fatal(err)
	}
	_, err := b.intake.Accept(t.Context(), keyed(`{"seed":9007199254740993}`))
	if fault.CodeOf(err) != fault.Conflict || len(b.topics.tasks) != 1 {
		t.Errorf("got %v and %d records", err, len(b.topics.tasks))
	}
	other := keyed(`{"seed":1}`)
	other.Tenant = "other"
	if _, err := b.intake.Accept(t.Context(), other); err != nil {
		t.Errorf("another tenant's key collided: %v", err)
	}
}

func TestWithRedisDownTheIDAloneHolds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.memory.down = true
	first, err := b.intake.Accept(t.Context(), keyed(`{"a":1}`))
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.intake.Accept(t.Context(), keyed(`{"a":1}`))
	if err != nil || again.ID != first.ID {
		t.Errorf("got %+v, %v, want id %s", again, err, first.ID)
	}
	other, err := b.intake.Accept(t.Context(), keyed(`{"a":2}`))
	if err != nil || other.ID == first.ID {
		t.Errorf("another body got %+v, %v", other, err)
	}
	if b.memory.asked != 1 {
		t.Errorf("a Redis that is down was asked %d times within a second", b.memory.asked)
	}
}

func TestRedisIsAskedAgainAfterAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		b.memory.down = true
		if _, err := b.intake.Accept(t.Context(), keyed(`{}`)); err != nil {
			t.Fatal(err)
		}
		b.memory.down = false
		time.Sleep(1100 * time.Millisecond)
		if _, err := b.intake.Accept(t.Context(), keyed(`{}`)); err != nil || b.memory.asked < 2 {
			t.Errorf("asked %d times, %v", b.memory.asked, err)
		}
	})
}

func TestTheBucketBeforeIsLookedUp(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("fingerprint lost %t", lost), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := setup(t)
				time.Sleep(time.Until(time.Now().Truncate(task.Bucket).Add(task.Bucket - time.Minute)))
				first, err := b.intake.Accept(t.Context(), keyed(`{}`))
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Minute) // over the edge
				if lost {
					clear(b.memory.prints)
				}
				again, err := b.intake.Accept(t.Context(), keyed(`{}`))
				if err != nil || again.ID != first.ID || !again.Repeat || len(b.topics.tasks) != 1 {
					t.Errorf("got %+v, %v, %d records; want the first bucket's id", again, err, len(b.topics.tasks))
				}
			})
		})
	}
}

func TestAHundredIdenticalSubmitsAreOneTask(t *testing.T) {
	t.Parallel()
	for _, down := range []bool{false, true} {
		t.Run(fmt.Sprintf("redis down %t", down), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.memory.down = down
			b.topics.gate = make(chan struct{})
			var wg sync.WaitGroup
			ids := make([]task.ID, 100)
			for i := range ids {
				wg.Go(func() {
					r, err := b.intake.Accept(t.Context(), keyed(`{"a":1}`))
					if err != nil {
						t.Error(err)
					}
					ids[i] = r.ID
				})
			}
			close(b.topics.gate)
			wg.Wait()
			for _, id := range ids {
				if id != ids[0] || id == "" {
					t.Fatalf("ids %s and %s for one key", id, ids[0])
				}
			}
			for _, id := range b.topics.ids() {
				if id != ids[0] {
					t.Errorf("a record of another id %s", id)
				}
			}
			if n := len(b.topics.ids()); !down && n != 1 {
				t.Errorf("%d records with Redis up", n)
			}
		})
	}
}

func TestAcceptAllKeepsGoodItemsAndTheirOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	reqs := []*api.SubmitRequest{text("chat", "one"), text("nope", "two"), text("chat", "three"), text("chat", "four")}
	got := b.intake.AcceptAll(t.Context(), len(reqs), func(i int) (ingest.Submission, error) {
		if i == 2 {
			return ingest.Submission{}, fault.New(fault.Malformed, "bad item")
		}
		return submission(reqs[i], fmt.Sprint("k", i)), nil
	})
	codes := []fault.Code{"", fault.NotFound, fault.Malformed, ""}
	for i, r := range got {
		if code := fault.Code(""); r.Err != nil {
			code = ingest.CodeOf(r.Err)
			if code != codes[i] {
				t.Errorf("item %d: %v", i, r.Err)
			}
		} else if codes[i] != "" || r.Receipt.ID == "" {
			t.Errorf("item %d was accepted as %q", i, r.Receipt.ID)
		}
	}
	if texts := b.topics.tasks[0].Payload.Text + " " + b.topics.tasks[1].Payload.Text; texts != "one four" {
		t.Errorf("written in the order %s", texts)
	}
	again := b.intake.AcceptAll(t.Context(), 1, func(int) (ingest.Submission, error) { return submission(reqs[0], "k0"), nil })
	if !again[0].Receipt.Repeat || again[0].Receipt.ID != got[0].Receipt.ID || len(b.topics.tasks) != 2 {
		t.Errorf("a repeat of the list's first item got %+v and %d records", again[0], len(b.topics.tasks))
	}
	if len(b.intake.AcceptAll(t.Context(), 0, nil)) != 0 {
		t.Error("an empty list has outcomes")
	}
}

func TestAListThatKafkaNeverAnswersIsUnknown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		b.topics.mute = true
		began := time.Now()
		got := b.intake.AcceptAll(t.Context(), 1, func(int) (ingest.Submission, error) { return submission(text("chat", "a"), ""), nil })
		if fault.CodeOf(got[0].Err) != fault.Unavailable || got[0].Receipt.ID != "" || time.Since(began) != 10*time.Second {
			t.Errorf("got %+v after %s", got[0], time.Since(began))
		}
	})
}

func TestHintsReachRedisBehindTheAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { b.hints.Run(ctx) })
		r, err := b.intake.Accept(t.Context(), submission(text("chat", "a"), ""))
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !b.memory.known[r.ID] {
			t.Error("the hint did not arrive")
		}
		b.memory.down = true
		if _, err := b.intake.Accept(t.Context(), submission(text("chat", "b"), "")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		stop()
		wg.Wait()
		if n := dropped(t, b); n != 1 {
			t.Errorf("%d hints counted as dropped, want 1", n)
		}
	})
}

func TestABurstOfHintsIsStoredBitByBit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		for range 6512 {
			b.hints.Offer(ingest.Hint{ID: "task_x"})
		}
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		began := time.Now()
		wg.Go(func() { b.hints.Run(ctx) })
		for len(b.hints.Queue()) > 0 {
			time.Sleep(10 * time.Millisecond) // inside the bubble: no real time
		}
		if took := time.Since(began); took < 2700*time.Millisecond || took > 3300*time.Millisecond {
			t.Errorf("6,512 hints at 2,000 a second took %s", took)
		}
		stop()
		wg.Wait()
	})
}

func TestHintsAreDroppedNotWaitedFor(t *testing.T) {
	t.Parallel()
	b := setup(t) // nobody runs the hints
	for range 10_000 {
		b.hints.Offer(ingest.Hint{ID: "task_x"})
	}
	if n := dropped(t, b); n != 10_000-8192 {
		t.Errorf("%d dropped", n)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	b.hints.Run(ctx)
	if !b.memory.known["task_x"] || b.memory.asked != 8192/512 {
		t.Errorf("the queue was not stored on the way out: %d batches", b.memory.asked)
	}
}

func dropped(t *testing.T, b bundle) int {
	t.Helper()
	families, err := b.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "penstock_producer_hints_dropped_total" {
			return int(f.GetMetric()[0].GetCounter().GetValue())
		}
	}
	t.Fatal("no such metric")
	return 0
}

func TestAnIDTwoBucketsOldIsFoundButNotUsedAgain(t *testing.T) {
	t.Parallel()
	for _, published := range []bool{true, false} {
		t.Run(fmt.Sprintf("published %t", published), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := setup(t)
				time.Sleep(time.Until(time.Now().Truncate(task.Bucket).Add(task.Bucket - time.Hour)))
				first, err := b.intake.Accept(t.Context(), keyed(`{}`))
				if err != nil {
					t.Fatal(err)
				}
				if !published {
					clear(b.memory.known)
				}
				time.Sleep(26 * time.Hour)
				again, err := b.intake.Accept(t.Context(), keyed(`{}`))
				if err != nil || (again.ID == first.ID) != published || again.Repeat != published {
					t.Errorf("got %+v, %v after %+v", again, err, first)
				}
			})
		})
	}
}
