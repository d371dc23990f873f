package responses_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/convstore"
	"github.com/penstock/penstock/internal/lookup"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/producer/cancel"
	"github.com/penstock/penstock/producer/openai"
	"github.com/penstock/penstock/producer/responses"
	"github.com/penstock/penstock/producer/responses/responsestest"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is the log of conversations, and the tasks of responses.
type world struct {
	responsestest.Shelf
	stopped []task.ID
	view    api.Task
	gone    bool
}

func (w *world) Task(_ context.Context, id task.ID, _ time.Duration, _ context.Context) (api.Task, func(), error) {
	if w.gone {
		return api.Task{}, nil, lookup.Expired()
	}
	view := w.view
	view.TaskID = id
	return view, func() {}, nil
}

func (w *world) Cancel(_ context.Context, _ string, id task.ID) (cancel.Outcome, error) {
	w.stopped = append(w.stopped, id)
	return cancel.Outcome{Task: api.Task{TaskID: id, Status: task.Cancelled}, Ended: true}, nil
}

type bundle struct {
	*world
	*responses.Desk
	minter *task.Minter
}

func setup(t *testing.T, claims responses.Claims) bundle {
	t.Helper()
	minter, err := task.NewMinter(task.Secret{Number: 1, Key: []byte("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	if claims == nil {
		claims = claimcheck.New(nil, claimcheck.Params{})
	}
	w := &world{view: api.Task{Status: task.Succeeded, Output: &task.Output{Text: "answer", FinishReason: "stop"}}}
	return bundle{w, responses.New(responses.Params{
		Publisher: w, Store: w, Claims: claims, Tasks: w, Cancels: w, IDs: minter, Life: time.Hour, MaxChain: 1 << 20,
	}), minter}
}

// keep stores a response of acme and returns its id.
func (b bundle) keep(t *testing.T, previous, text string, background bool) string {
	t.Helper()
	id := b.minter.New("acme", time.Now())
	r := &openai.ResponseRequest{At: time.Now().Unix(), Echo: openai.ResponseEcho{Model: "m", Background: background, Store: true}, Input: []json.RawMessage{
		json.RawMessage(`{"role":"user","content":"` + text + `"}`),
	}}
	if previous != "" {
		r.Echo.Previous = &previous
	}
	if err := b.Keep(t.Context(), "acme", id, r); err != nil {
		t.Fatal(err)
	}
	return openai.ResponseID(id)
}

func TestAResponseOfAMomentAgoIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Hour) // an id of the start of a day could be made of a key
		b := setup(t, nil)
		lag := 300 * time.Millisecond
		b.Lag(lag)
		id, began := b.keep(t, "", "hi", false), time.Now()
		r, err := b.Find(t.Context(), "acme", id)
		if waited := time.Since(began); err != nil || r.Request.Echo.Model != "m" || waited < lag || waited > 2*lag {
			t.Errorf("%+v, %v after %s", r, err, waited)
		}
		b.Lag(time.Hour)
		began = time.Now()
		if _, err := b.Find(t.Context(), "acme", id); fault.CodeOf(err) != fault.NotFound || time.Since(began) > 2*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		time.Sleep(2 * time.Minute)
		began = time.Now()
		if _, err := b.Find(t.Context(), "acme", id); fault.CodeOf(err) != fault.NotFound || time.Since(began) > 0 {
			t.Errorf("one of long ago was waited for: %v after %s", err, time.Since(began))
		}
	})
}

func TestWhatCannotBeSaidYetIsNotDenied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, nil)
		id := b.keep(t, "", "hi", false)
		for _, away := range []error{convstore.ErrRebuilding, errors.New("redis is away")} {
			b.Away(away)
			if _, err := b.Find(t.Context(), "acme", id); fault.CodeOf(err) != fault.Unavailable || fault.RetryAfterOf(err) == 0 {
				t.Errorf("%v: %v", away, err)
			}
			if _, err := b.Earlier(t.Context(), "acme", id); fault.CodeOf(err) != fault.Unavailable {
				t.Errorf("%v: %v", away, err)
			}
		}
	})
}

func TestADeletionIsSeenWhenItIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, nil)
		b.Lag(100 * time.Millisecond)
		id := b.keep(t, "", "hi", false)
		of, err := b.Delete(t.Context(), "acme", id)
		if err != nil || openai.ResponseID(of) != id || len(b.stopped) != 1 {
			t.Fatalf("%s, %v, stopped %v", of, err, b.stopped)
		}
		began := time.Now()
		if _, err := b.Find(t.Context(), "acme", id); fault.CodeOf(err) != fault.NotFound || time.Since(began) > 0 {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}

func TestADeletionThatIsNotDurableIsNotAnswered(t *testing.T) {
	b := setup(t, nil)
	id := b.keep(t, "", "hi", false)
	b.Refuse(tasktopic.ErrUnknown)
	if _, err := b.Delete(t.Context(), "acme", id); fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("%v", err)
	}
	for because, want := range map[error]fault.Code{tasktopic.ErrUnknown: fault.Unavailable, tasktopic.ErrFull: fault.Unavailable, tasktopic.ErrTooLarge: fault.TooLarge} {
		b.Refuse(because)
		if err := b.Keep(t.Context(), "acme", b.minter.New("acme", time.Now()), &openai.ResponseRequest{}); fault.CodeOf(err) != want || errors.Is(err, because) {
			t.Errorf("%v: %v", because, err)
		}
	}
}

func TestAConversationIsAsLongAsItMayBe(t *testing.T) {
	b := setup(t, nil)
	id := ""
	for range 64 {
		id = b.keep(t, id, "hi", false)
	}
	messages, err := b.Earlier(t.Context(), "acme", id)
	if err != nil || len(messages) != 128 || messages[127].Role != "assistant" {
		t.Fatalf("%d messages, %v", len(messages), err)
	}
	if bad, ok := errors.AsType[*validate.Error](last(b.Earlier(t.Context(), "acme", b.keep(t, id, "hi", false)))); !ok || bad.Path != "previous_response_id" || bad.Code != fault.Malformed {
		t.Errorf("%v", bad)
	}
	long := b.keep(t, "", strings.Repeat("x", 1<<20), false)
	if bad, ok := errors.AsType[*validate.Error](last(b.Earlier(t.Context(), "acme", long))); !ok || bad.Code != fault.TooLarge {
		t.Errorf("%v", bad)
	}
	b.gone = true
	if bad, ok := errors.AsType[*validate.Error](last(b.Earlier(t.Context(), "acme", id))); !ok || bad.Code != fault.NotFound {
		t.Errorf("%v", bad)
	}
}

func last(_ []openai.Message, err error) error { return err }

func TestLargeRequestsLieInTheBlobStore(t *testing.T) {
	ctx := t.Context()
	config := blob.DefaultConfig()
	config.URL = "file://" + t.TempDir()
	store, err := blob.New(config, blob.Params{Service: "producer", Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	b := setup(t, claimcheck.New(store, claimcheck.Params{}))
	text := strings.Repeat("x", claimcheck.Inline+1)
	id := b.keep(t, "", text, false)
	if r := b.Records()[0]; r.Content != nil || r.ContentRef == nil {
		t.Fatalf("%d bytes inline, ref %v", len(r.Content), r.ContentRef)
	}
	r, err := b.Find(ctx, "acme", id)
	if err != nil || !strings.Contains(string(r.Request.Input[0]), text) {
		t.Errorf("%v", err)
	}
}

func TestOnlyWhatRunsInTheBackgroundIsCancelled(t *testing.T) {
	b := setup(t, nil)
	if _, _, err := b.Desk.Cancel(t.Context(), "acme", b.keep(t, "", "hi", false)); fault.CodeOf(err) != fault.Malformed || len(b.stopped) != 0 {
		t.Errorf("%v, stopped %v", err, b.stopped)
	}
	if _, view, err := b.Desk.Cancel(t.Context(), "acme", b.keep(t, "", "hi", true)); err != nil || view.Status != task.Cancelled {
		t.Errorf("%+v, %v", view, err)
	}
	if _, _, err := b.Desk.Cancel(t.Context(), "other", b.keep(t, "", "hi", true)); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("%v", err)
	}
}
