//go:build e2e

package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/cmd/system"
	"github.com/penstock/penstock/internal/callback"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/webhook"
)

// ear receives webhooks, verifies them and counts the events of each task or
// batch.
type ear struct {
	t        *testing.T
	verifier *callback.Verifier

	mu     sync.Mutex
	deaf   bool                       // hold calls, and never answer them
	calls  int                        // also those that were held
	events map[task.ID]map[string]int // answered, by task and id
	said   map[string]string          // body of each event
}

// openEar opens an ear for the webhooks of a system, and says where it is.
func openEar(t *testing.T, s *system.System) (*ear, string) {
	t.Helper()
	secret, err := s.Client().WebhookSecret(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := callback.NewVerifier(config.Secret(secret))
	if err != nil {
		t.Fatal(err)
	}
	e := &ear{t: t, verifier: verifier, events: map[task.ID]map[string]int{}, said: map[string]string{}}
	srv := httptest.NewServer(e)
	t.Cleanup(srv.Close)
	return e, srv.URL
}

// ServeHTTP implements http.Handler.
func (e *ear) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if err := e.verifier.Verify(r.Header, body); err != nil {
		e.t.Errorf("a call that nobody should believe: %v", err)
	}
	var event webhook.Event
	if err := json.Unmarshal(body, &event); err != nil {
		e.t.Error(err)
	}
	e.mu.Lock()
	e.calls++
	deaf := e.deaf
	if said := e.said[event.ID]; said != "" && said != string(body) {
		e.t.Errorf("event %s says %s, and before %s", event.ID, body, said)
	}
	e.said[event.ID] = string(body)
	if !deaf {
		if e.events[event.Data.ID] == nil {
			e.events[event.Data.ID] = map[string]int{}
		}
		e.events[event.Data.ID][event.ID]++
	}
	e.mu.Unlock()
	if deaf {
		<-r.Context().Done()
	}
}

func (e *ear) set(deaf bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.deaf = deaf
}

func (e *ear) heard(ids []task.ID) (tasks, calls int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range ids {
		if len(e.events[id]) > 0 {
			tasks++
		}
	}
	return tasks, e.calls
}

// TestAResultsServiceThatIsKilledLosesNoWebhook kills the service while ends are
// written down and calls hang, and again while others are made, and expects
// every end to be told under one id.
func TestAResultsServiceThatIsKilledLosesNoWebhook(t *testing.T) {
	const tasks = 60
	p := params(t)
	p.Results, p.Env = 1, []string{"PENSTOCK_WEBHOOK_ALLOW_PRIVATE=true", "PENSTOCK_WEBHOOK_PER_HOST=64", "PENSTOCK_WEBHOOK_TIMEOUT=3s"}
	s := start(t, p)
	e, url := openEar(t, s)
	e.set(true)
	submit := func(from int) []task.ID {
		return submitMany(t, s, tasks, func(i int) api.SubmitRequest {
			r := prompt(fmt.Sprint("hooked ", from+i))
			r.Webhook = &task.Webhook{URL: url + "/hook"}
			return r
		})
	}
	list := submit(0)
	eventually(t, time.Minute, "calls hang", func() bool { _, calls := e.heard(list); return calls >= tasks/2 })
	if err := s.Results[0].Kill9(); err != nil {
		t.Fatal(err)
	}
	more := submit(tasks) // these end while nobody calls
	e.set(false)
	if err := s.Results[0].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "some are told", func() bool { n, _ := e.heard(append(list, more...)); return n > tasks/4 })
	if err := s.Results[0].Kill9(); err != nil {
		t.Fatal(err)
	}
	if err := s.Results[0].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := append(list, more...)
	eventually(t, 2*time.Minute, "all are told", func() bool { n, _ := e.heard(all); return n == len(all) })
	e.mu.Lock()
	for _, id := range all {
		if len(e.events[id]) != 1 || e.events[id][webhook.EventID(id, 0)] == 0 {
			t.Errorf("task %s was told as %v", id, e.events[id])
		}
	}
	t.Logf("%d calls for %d ends, over two kills", e.calls, len(all))
	e.mu.Unlock()
	eventually(t, time.Minute, "the log says so", func() bool {
		l, err := s.Client().Webhook(t.Context(), list[0])
		return err == nil && len(l.Deliveries) == 1 && l.Deliveries[0].State == webhook.Delivered
	})
}
