package ingest_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

func hooked(s string) *api.SubmitRequest {
	r := text("chat", s)
	r.Webhook = &task.Webhook{URL: "https://example.com/hook", Events: []string{"task.succeeded"}}
	return r
}

func TestAWebhookIsRegisteredBeforeItsTask(t *testing.T) {
	t.Parallel()
	t.Run("of one submit", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := setup(t)
			b.topics.slow = []time.Duration{time.Second}
			got, err := b.intake.Accept(t.Context(), submission(hooked("a"), ""))
			if err != nil {
				t.Fatal(err)
			}
			want := []string{"registered " + string(got.ID), "task " + string(got.ID)}
			if !slices.Equal(b.topics.written, want) || b.topics.tasks[0].Webhook.URL != "https://example.com/hook" {
				t.Errorf("written %v, webhook %+v", b.topics.written, b.topics.tasks[0].Webhook)
			}
		})
	})
	t.Run("of a list, whose order stays", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := setup(t)
			b.topics.slow = []time.Duration{3 * time.Second, time.Second, 2 * time.Second}
			results := b.intake.AcceptAll(t.Context(), 6, func(i int) (ingest.Submission, error) {
				if i%2 == 0 {
					return submission(hooked("a"), ""), nil
				}
				return submission(text("chat", "b"), ""), nil
			})
			var ids []task.ID
			for i, r := range results {
				if r.Err != nil {
					t.Fatal(r.Err)
				}
				ids = append(ids, r.Receipt.ID)
				registered := slices.Index(b.topics.written, "registered "+string(r.Receipt.ID))
				published := slices.Index(b.topics.written, "task "+string(r.Receipt.ID))
				if published < 0 || registered > published || (registered < 0) != (i%2 == 1) {
					t.Errorf("item %d: registered at %d, published at %d", i, registered, published)
				}
			}
			if !slices.Equal(b.topics.ids(), ids) {
				t.Errorf("published as %v; sent as %v", b.topics.ids(), ids)
			}
		})
	})
}

func TestATaskWhoseWebhookIsNotRegisteredIsNotAccepted(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*topics){
		"because Kafka says nothing":  func(p *topics) { p.noHooks = true },
		"because its fate is unknown": func(p *topics) { p.hookErr = tasktopic.ErrUnknown },
		"because too much waits":      func(p *topics) { p.hookErr = tasktopic.ErrFull },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := setup(t)
				spoil(b.topics)
				_, err := b.intake.Accept(t.Context(), submission(hooked("a"), ""))
				if fault.CodeOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "nothing was accepted") || len(b.topics.tasks) != 0 {
					t.Errorf("%v, %d tasks", err, len(b.topics.tasks))
				}
				began := time.Now()
				results := b.intake.AcceptAll(t.Context(), 3, func(i int) (ingest.Submission, error) {
					if i == 1 {
						return submission(text("chat", "b"), ""), nil
					}
					return submission(hooked("a"), ""), nil
				})
				if fault.CodeOf(results[0].Err) != fault.Unavailable || fault.CodeOf(results[2].Err) != fault.Unavailable {
					t.Errorf("outcomes %v and %v", results[0].Err, results[2].Err)
				}
				if took := time.Since(began); took > 11*time.Second {
					t.Errorf("a list waited %s", took)
				}
				for _, published := range b.topics.tasks {
					if published.Webhook != nil {
						t.Error("a task was published whose webhook nobody knows")
					}
				}
			})
		})
	}
}
