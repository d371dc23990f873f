package webhook_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/webhook"
)

func TestABatchThatIsAnnouncedIsTold(t *testing.T) {
	inBubble(t, func(b *bundle) {
		b.start(nil)
		for i := range 6 { // over both partitions
			id := fmt.Sprintf("batch_%d", i)
			b.announce(id, b.hook())
			got := b.settled(task.ID(id), 1)
			calls := b.to.of(task.ID(id))
			if len(calls) != 1 || len(got) != 1 || got[0].State != webhook.Delivered || got[0].Type != "batch.completed" || got[0].ID != calls[0].id {
				t.Fatalf("%d calls, log %+v", len(calls), got)
			}
		}
	})
}

// Who takes a batch over announces it again where it cannot know that it was.
func TestABatchThatIsAnnouncedAgainIsToldOnce(t *testing.T) {
	for name, wait := range map[string]time.Duration{"at once": 0, "once it was told": time.Minute, "two hours later": 2 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bundle) {
				const id = "batch_1"
				m := b.start(nil)
				b.announce(id, b.hook())
				time.Sleep(wait)
				b.announce(id, b.hook())
				b.settled(id, 1)
				m.stop()
				b.start(nil)
				b.announce(id, b.hook())
				time.Sleep(time.Hour)
				if calls := b.to.of(id); len(calls) != 1 {
					t.Errorf("%d calls", len(calls))
				}
			})
		})
	}
}

func TestADeliveryOfABatchSurvivesARestart(t *testing.T) {
	inBubble(t, func(b *bundle) {
		const id = "batch_1"
		b.to.answers(func(n int, _ heard) int {
			if n < 3 {
				return http.StatusInternalServerError
			}
			return http.StatusOK
		})
		m := b.start(nil)
		b.announce(id, b.hook())
		b.await("an attempt", func() bool { d := b.logs.of(id); return len(d) == 1 && len(d[0].Attempts) == 1 })
		m.stop()
		b.logs.lose()
		b.start(nil)
		got := b.settled(id, 1)[0]
		if calls := b.to.of(id); got.State != webhook.Delivered || len(got.Attempts) != 3 || len(calls) != 3 || calls[2].id != calls[0].id || calls[2].body != calls[0].body {
			t.Errorf("%s after %d attempts, %d calls", got.State, len(got.Attempts), len(calls))
		}
	})
}

func TestAResponseIsToldInItsOwnForm(t *testing.T) {
	inBubble(t, func(b *bundle) {
		b.start(nil)
		w := b.hook(webhook.ResponseCompleted)
		w.Form = task.FormResponse
		done, failed := b.submit(w), b.submit(w)
		b.end(failed, task.Failed, 0)
		b.end(done, task.Succeeded, 0)
		if got := b.settled(done, 1); len(got) != 1 || got[0].Type != webhook.ResponseCompleted {
			t.Errorf("log %+v", got)
		}
		time.Sleep(time.Minute)
		response := task.ID("resp_" + string(done[len("task_"):]))
		if calls := b.to.of(response); len(calls) != 1 || len(b.to.calls) != 1 {
			t.Errorf("%d calls about the response, %d in all", len(calls), len(b.to.calls))
		}
	})
}

func TestAReceiverThatAsksForTimeGetsIt(t *testing.T) {
	inBubble(t, func(b *bundle) {
		b.to.retryAfter = "120"
		b.to.answers(func(n int, _ heard) int {
			if n == 1 {
				return http.StatusTooManyRequests
			}
			return http.StatusOK
		})
		b.start(nil)
		id := b.submit(b.hook())
		b.end(id, task.Succeeded, 0)
		b.settled(id, 1)
		calls := b.to.of(id)
		if took := calls[1].at.Sub(calls[0].at); took < 120*time.Second || took > 125*time.Second {
			t.Errorf("the second attempt came after %s", took)
		}
	})
}
