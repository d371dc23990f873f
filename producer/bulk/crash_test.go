package bulk_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/producer/bulk"
)

// A process is killed before and after each thing that it does, more than once
// each, and another takes the batch over.
func TestABatchSurvivesAKillAtEveryStep(t *testing.T) {
	const n = 40
	for _, op := range []string{
		"bulk.claimed", "bulk.validated", "accept", "put", "bulk.segment", "bulk.finalizing", "open", "keep", "bulk.ended", "announce", "bulk.told", "bulk.beat",
	} {
		for _, when := range []string{"before ", "after "} {
			for _, nth := range []int{1, 3} {
				t.Run(fmt.Sprintf("%s%s %d", when, op, nth), func(t *testing.T) {
					inBubble(t, func(t *testing.T, w *world) {
						w.takes = func(prompt string) time.Duration { return time.Duration(len(prompt)%3+1) * 900 * time.Millisecond }
						client := w.start(nil)
						input := client.upload(jsonl(n))
						client.drain() // its death is not the matter here
						seen := 0
						victim := w.start(func(at string) bool {
							if at == when+op {
								seen++
							}
							return seen == nth
						})
						b, err := victim.desk.Create(t.Context(), tenant, bulk.Order{Input: input, Endpoint: endpoint, Window: "24h", Webhook: hook})
						if err != nil {
							t.Fatal(err)
						}
						time.Sleep(20 * time.Second)
						victim.drain()
						heir := w.start(nil)
						defer heir.drain()
						ended := heir.finish(b.ID, 5*time.Minute)
						if ended.Status != bulk.Completed {
							t.Errorf("ended as %s", ended.Status)
						}
						heir.expectWhole(ended, n)
						heir.expectTold(ended)
					})
				})
			}
		}
	}
}

func TestProcessesThatComeAndGoShareTheWork(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.takes = func(string) time.Duration { return 2 * time.Second }
		p := w.start(nil)
		id := p.order(jsonl(300), "24h")
		for range 6 {
			time.Sleep(4 * time.Second)
			next := w.start(nil)
			p.drain()
			p = next
		}
		defer p.drain()
		p.expectWhole(p.finish(id, 10*time.Minute), 300)
	})
}

// An owner that sleeps past its lease writes in vain when it wakes: the lines of
// the segment it was about to store are its heir's.
func TestAnOwnerThatWasReplacedAddsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		sleeper := w.start(nil)
		sleeper.freezeAt("put")
		id := sleeper.order(jsonl(40), "24h")
		time.Sleep(5 * time.Second)
		if !sleeper.isAsleep() {
			t.Fatal("nothing was stored")
		}
		heir := w.start(nil)
		defer heir.drain()
		ended := heir.finish(id, 5*time.Minute)
		sleeper.wake()
		time.Sleep(time.Minute)
		sleeper.drain()
		heir.expectWhole(ended, 40)
		if again := heir.batch(id); again.Counts != ended.Counts || again.Output != ended.Output || again.Errors != ended.Errors {
			t.Errorf("the batch changed after its end: %+v, %+v", ended, again)
		}
	})
}

func TestALostAnswerOfTheLogCountsNothingTwice(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		p := w.start(nil)
		p.loses()
		defer p.drain()
		p.expectWhole(p.finish(p.order(jsonl(60), "24h"), 5*time.Minute), 60)
	})
}

func TestAPeekAtEndedBatchesAfterAStart(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		p := w.start(nil)
		id := p.order(jsonl(10), "24h")
		ended := p.finish(id, time.Minute)
		p.drain()
		q := w.start(nil)
		defer q.drain()
		q.expectWhole(q.batch(id), 10)
		if q.batch(id).Output != ended.Output {
			t.Error("another output after a start")
		}
		tasks := len(w.tasks)
		time.Sleep(10 * time.Minute)
		if len(w.tasks) != tasks {
			t.Error("an ended batch was run again")
		}
	})
}

func TestFilesListInPagesAndExpire(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		p := w.start(nil)
		defer p.drain()
		var ids []string
		for i := range 5 {
			u, err := p.desk.Receive(t.Context(), strings.NewReader(strings.Repeat("x", i)))
			if err != nil {
				t.Fatal(err)
			}
			f, err := p.desk.File(t.Context(), tenant, u, bulk.About{Name: "f", Purpose: bulk.PurposeUserData, Life: time.Duration(i+1) * time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, f.ID)
			time.Sleep(time.Millisecond)
		}
		page, more, err := p.desk.Files(t.Context(), tenant, "", bulk.Page{Limit: 2})
		if err != nil || !more || len(page) != 2 || page[0].ID != ids[4] || page[1].ID != ids[3] {
			t.Errorf("first page %v, more %t, %v", page, more, err)
		}
		page, more, err = p.desk.Files(t.Context(), tenant, "", bulk.Page{Limit: 3, After: page[1].ID})
		if err != nil || more || len(page) != 3 || page[2].ID != ids[0] {
			t.Errorf("second page %v, more %t, %v", page, more, err)
		}
		page, _, err = p.desk.Files(t.Context(), tenant, "", bulk.Page{Limit: 2, Ascending: true, After: ids[0]})
		if err != nil || len(page) != 2 || page[0].ID != ids[1] {
			t.Errorf("upwards %v, %v", page, err)
		}
		if err := p.desk.DeleteFile(t.Context(), tenant, ids[4]); err != nil {
			t.Fatal(err)
		}
		if _, _, err := p.desk.Content(t.Context(), tenant, ids[4]); err == nil {
			t.Error("a deleted file can be read")
		}
		time.Sleep(2*time.Hour + 15*time.Minute)
		page, _, err = p.desk.Files(t.Context(), tenant, "", bulk.Page{Limit: 10})
		if err != nil || len(page) != 2 {
			t.Errorf("after two hours there are %v, %v", page, err)
		}
	})
}
