package bulk_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/producer/bulk"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/webhook"
)

var hook = &task.Webhook{URL: "https://example.com/hook"}

// expectTold looks at what was announced of a batch: at least once, and each
// time the same.
func (p *process) expectTold(b bulk.Batch) {
	p.t.Helper()
	time.Sleep(time.Minute) // past the lease of an owner that died on the way
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.told) == 0 {
		p.t.Fatal("nobody was told of the end")
	}
	for _, w := range p.told {
		var e struct {
			ID, Type string
			Data     webhook.BatchData
		}
		if err := json.Unmarshal(w.Event, &e); err != nil {
			p.t.Fatal(err)
		}
		want := webhook.BatchData{
			ID: b.ID, Status: string(b.Status), Endpoint: endpoint, InputFileID: b.Spec.Input, OutputFileID: b.Output, ErrorFileID: b.Errors,
			RequestCounts: webhook.BatchCounts{Total: b.Total, Completed: b.Counts.Completed, Failed: b.Counts.Ended() - b.Counts.Completed},
		}
		if diff := cmp.Diff(want, e.Data); diff != "" || e.Type != "batch."+string(b.Status) || e.ID != webhook.EventID(b.ID, 0) {
			p.t.Errorf("event %s (-want +got)\n%s", w.Event, diff)
		}
		if w.Step != webhook.Announced || w.BatchID != b.ID || w.Tenant != tenant || w.Webhook.URL != hook.URL || string(w.Event) != string(p.told[0].Event) {
			p.t.Errorf("record %+v", w)
		}
	}
}

func TestTheEndOfABatchIsAnnouncedOnce(t *testing.T) {
	for name, c := range map[string]struct {
		content, window string
		cancel          bool
		want            bulk.Status
	}{
		"one that is completed":           {content: jsonl(5), window: "24h", want: bulk.Completed},
		"one whose file is at fault":      {content: "no JSON", window: "24h", want: bulk.Failed},
		"one whose window is over":        {content: jsonl(500), window: "1m", want: bulk.Expired},
		"one that its client has stopped": {content: jsonl(500), window: "24h", cancel: true, want: bulk.Cancelled},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.takes = func(string) time.Duration { return 10 * time.Second }
				p := w.start(nil)
				b, err := p.desk.Create(t.Context(), tenant, bulk.Order{Input: p.upload(c.content), Endpoint: endpoint, Window: c.window, Webhook: hook})
				if err != nil {
					t.Fatal(err)
				}
				if c.cancel {
					time.Sleep(15 * time.Second)
					if _, err := p.desk.Cancel(t.Context(), tenant, b.ID); err != nil {
						t.Fatal(err)
					}
				}
				ended := p.finish(b.ID, 10*time.Minute)
				if ended.Status != c.want {
					t.Fatalf("ended as %s", ended.Status)
				}
				p.expectTold(ended)
				p.drain()
				q := w.start(nil) // that finds it in the log
				defer q.drain()
				time.Sleep(time.Hour)
				if len(w.told) != 1 {
					t.Errorf("announced %d times", len(w.told))
				}
			})
		})
	}
}

func TestABatchThatNobodyWantsToHearOfIsNotAnnounced(t *testing.T) {
	for name, h := range map[string]*task.Webhook{
		"without a webhook":   nil,
		"one for another end": {URL: hook.URL, Events: []string{"batch.failed"}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				p := w.start(nil)
				defer p.drain()
				b, err := p.desk.Create(t.Context(), tenant, bulk.Order{Input: p.upload(jsonl(5)), Endpoint: endpoint, Window: "24h", Webhook: h})
				if err != nil {
					t.Fatal(err)
				}
				p.finish(b.ID, time.Minute)
				time.Sleep(time.Hour)
				if len(w.told) != 0 {
					t.Errorf("announced: %+v", w.told)
				}
			})
		})
	}
}

// While penstock.webhooks takes nothing the batch is there to be read, and the
// announcement waits.
func TestAnAnnouncementWaitsForKafka(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		p := w.start(nil)
		defer p.drain()
		p.freezeAt("announce")
		b, err := p.desk.Create(t.Context(), tenant, bulk.Order{Input: p.upload(jsonl(5)), Endpoint: endpoint, Window: "24h", Webhook: hook})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if got := p.batch(b.ID); got.Status != bulk.Completed || len(w.told) != 0 {
			t.Errorf("%s, announced %d times", got.Status, len(w.told))
		}
		p.wake()
		p.expectTold(p.batch(b.ID))
	})
}

func TestAWebhookOfABatchIsCheckedAtTheDoor(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		p := w.start(nil)
		defer p.drain()
		input := p.upload(jsonl(1))
		for param, h := range map[string]*task.Webhook{
			"webhook.url":    {URL: "http://127.0.0.1/"},
			"webhook.events": {URL: hook.URL, Events: []string{"task.succeeded"}},
		} {
			_, err := p.desk.Create(t.Context(), tenant, bulk.Order{Input: input, Endpoint: endpoint, Window: "24h", Webhook: h})
			if bad, ok := err.(*validate.Error); !ok || !strings.HasPrefix(bad.Path, param) { //nolint:errorlint // as the door returns it
				t.Errorf("%s: %v", param, err)
			}
		}
	})
}
