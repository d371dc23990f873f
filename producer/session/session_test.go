package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/penstock/penstock/internal/blob"
	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/claimcheck/claimchecktest"
	"github.com/penstock/penstock/internal/convstore"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/internal/validate"
	"github.com/penstock/penstock/producer/session"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/conversation"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const lag = 20 * time.Millisecond

var errDown = errors.New("away")

// world is the log of one session, and its projection, which lags.
type world struct {
	mu      sync.Mutex
	records []*conversation.Record
	session *convstore.Session
	found   map[task.ID]taskstore.Found
	kafka   error
	redis   error
	blobs   *claimchecktest.Store
}

func (w *world) Conversation(_ context.Context, r *conversation.Record) (tasktopic.Ack, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.kafka != nil {
		return tasktopic.Ack{}, w.kafka
	}
	w.records = append(w.records, r)
	time.AfterFunc(lag, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.session = nil; r.Step == conversation.Opened {
			w.session = &convstore.Session{Settings: r.Settings, Until: r.Until}
		}
	})
	return tasktopic.Ack{}, nil
}

func (w *world) BrokerNow() time.Time { return time.Now() }

func (w *world) Session(_ context.Context, _, _ string, newest int) (*convstore.Session, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.redis != nil:
		return nil, w.redis
	case w.session == nil:
		return nil, convstore.ErrUnknown
	}
	out := *w.session
	out.Turns = out.Turns[max(0, len(out.Turns)-newest):]
	return &out, nil
}

func (w *world) GetMany(_ context.Context, ids []task.ID) ([]taskstore.Found, error) {
	out := make([]taskstore.Found, len(ids))
	for i, id := range ids {
		out[i] = w.found[id]
	}
	return out, w.redis
}

func (w *world) Params() taskstore.Params { return taskstore.Params{TTL: time.Hour} }

func inWorld(t *testing.T, f func(t *testing.T, w *world, d *session.Desk)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{found: map[task.ID]taskstore.Found{}, blobs: claimchecktest.New()}
		f(t, w, session.New(session.Params{Publisher: w, Store: w, Results: w, Claims: claimcheck.New(w.blobs, claimcheck.Params{})}))
	})
}

func TestASessionIsOpenedAndChanged(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, d *session.Desk) {
		began := time.Now().UTC()
		got, created, err := d.Open(t.Context(), "acme", "s-1", api.SessionSettings{
			Instructions: "be brief", MaxTokens: 100, TTL: "90s", Labels: map[string]string{"a": "b"},
		})
		want := api.Session{
			SessionID: "s-1", Instructions: "be brief", MaxTokens: 100, TTL: "1m30s", Labels: map[string]string{"a": "b"},
			ExpiresAt: began.Add(90 * time.Second), Turns: []api.Turn{},
		}
		if diff := cmp.Diff(want, got); diff != "" || !created || err != nil {
			t.Errorf("created %t, %v\n%s", created, err, diff)
		}
		if shown, err := d.Show(t.Context(), "acme", "s-1", 1); err != nil || cmp.Diff(want, shown) != "" {
			t.Errorf("who looks next does not see it: %+v, %v", shown, err)
		}
		got, created, err = d.Open(t.Context(), "acme", "s-1", api.SessionSettings{})
		if err != nil || created || got.Instructions != "" || got.TTL != "1h0m0s" {
			t.Errorf("created %t: %+v, %v", created, got, err)
		}
	})
}

func TestAForgottenSessionIsGone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, d *session.Desk) {
		if _, _, err := d.Open(t.Context(), "acme", "s-1", api.SessionSettings{}); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time there is nothing, and that is no error
			if err := d.Forget(t.Context(), "acme", "s-1"); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Show(t.Context(), "acme", "s-1", 1); fault.CodeOf(err) != fault.NotFound {
				t.Errorf("got %v", err)
			}
		}
		if n := len(w.records); n != 3 || w.records[2].Step != conversation.Deleted || w.records[2].SessionID != "s-1" || w.records[2].Tenant != "acme" {
			t.Errorf("%d records", n)
		}
	})
}

func TestWritesGoOnWithoutRedisAndReadsDoNot(t *testing.T) {
	for _, down := range []error{errDown, convstore.ErrRebuilding} {
		inWorld(t, func(t *testing.T, w *world, d *session.Desk) {
			w.redis = down
			if _, created, err := d.Open(t.Context(), "acme", "s-1", api.SessionSettings{}); err != nil || created {
				t.Errorf("created %t, %v", created, err)
			}
			if err := d.Forget(t.Context(), "acme", "s-1"); err != nil {
				t.Error(err)
			}
			if _, err := d.Show(t.Context(), "acme", "s-1", 1); fault.CodeOf(err) != fault.Unavailable || fault.RetryAfterOf(err) == 0 {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestWhatKafkaDoesNotTakeIsUnavailable(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, d *session.Desk) {
		w.kafka = errDown
		_, _, err := d.Open(t.Context(), "acme", "s-1", api.SessionSettings{})
		for _, err := range []error{err, d.Forget(t.Context(), "acme", "s-1")} {
			if fault.CodeOf(err) != fault.Unavailable || fault.RetryAfterOf(err) == 0 {
				t.Errorf("got %v", err)
			}
		}
	})
}

func TestSettingsThatCannotBe(t *testing.T) {
	long := strings.Repeat("é", api.MaxInstructions/2+1)
	for want, s := range map[string]api.SessionSettings{
		"instructions: has 65538 bytes, at most 65536 are allowed":                         {Instructions: long},
		"labels: a name or value is longer than 256 bytes":                                 {Labels: map[string]string{"a": long}},
		"ttl: expected a duration from 1m0s to 1h0m0s, the time to live of results":        {TTL: "61m"},
		"ttl: expected a duration from 1m0s to 1h0m0s, the time to live of results (low)":  {TTL: "59s"},
		"ttl: expected a duration from 1m0s to 1h0m0s, the time to live of results (none)": {TTL: "soon"},
	} {
		t.Run(want, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world, d *session.Desk) {
				_, _, err := d.Open(t.Context(), "acme", "s-1", s)
				bad, ok := errors.AsType[*validate.Error](err)
				if text, _, _ := strings.Cut(want, " ("); !ok || bad.Error() != text || len(w.records) != 0 {
					t.Errorf("got %v and %d records", err, len(w.records))
				}
			})
		})
	}
}

func TestTurnsAreShownAsTheyEnded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, d *session.Desk) {
		at := time.Now().UTC()
		asked := json.RawMessage(`[{"role":"user","content":"hi"}]`)
		view := func(s task.Status, text string) taskstore.Found {
			v := api.Task{Status: s}
			if text != "" {
				v.Output, v.Usage = &task.Output{Text: text}, &task.Usage{CompletionTokens: 2}
			}
			return taskstore.Found{View: v}
		}
		large := strings.Repeat("x", 3<<20)
		w.session = &convstore.Session{Until: at, Total: 9}
		for _, turn := range []struct {
			id    task.ID
			found taskstore.Found
			ref   *task.Ref
		}{
			{"beyond the limit", view(task.Succeeded, "no"), nil},
			{"too large for all", view(task.Succeeded, large), nil},
			{"large", view(task.Succeeded, large), nil},
			{"answered", view(task.Succeeded, "re: hi"), nil},
			{"failed", view(task.Failed, ""), nil},
			{"stored", view(task.Succeeded, ""), &task.Ref{}},
			{"running", view(task.Running, ""), nil},
		} {
			w.found[turn.id] = turn.found
			one := convstore.Turn{TaskID: turn.id, At: at, Content: asked, ContentRef: turn.ref}
			if turn.ref != nil {
				one.Content = nil
			}
			w.session.Turns = append(w.session.Turns, one)
		}
		got, err := d.Show(t.Context(), "acme", "s-1", 6)
		if err != nil {
			t.Fatal(err)
		}
		said := func(text string) json.RawMessage {
			return json.RawMessage(`{"role":"assistant","content":"` + text + `"}`)
		}
		if string(got.Turns[1].Answer) != string(said(large)) {
			t.Errorf("an answer of %d bytes is shown as one of %d", len(said(large)), len(got.Turns[1].Answer))
		}
		got.Turns[1].Answer = json.RawMessage(`"large"`)
		want := []api.Turn{
			{TaskID: "too large for all", Status: task.Succeeded, At: at, Tokens: 10, Omitted: true},
			{TaskID: "large", Status: task.Succeeded, At: at, Tokens: 10, Messages: asked, Answer: json.RawMessage(`"large"`)},
			{TaskID: "answered", Status: task.Succeeded, At: at, Tokens: 10, Messages: asked, Answer: said("re: hi")},
			{TaskID: "failed", Status: task.Failed, At: at, Messages: asked},
			{TaskID: "stored", Status: task.Succeeded, At: at, Omitted: true},
			{TaskID: "running", Status: task.Running, At: at, Messages: asked},
		}
		if diff := cmp.Diff(want, got.Turns); diff != "" || got.TurnCount != 9 {
			t.Errorf("of %d turns (-want +got)\n%.2000s", got.TurnCount, diff)
		}
	})
}

// stored is a session of turns that lie in the blob store: what was asked of
// each, and answered, is as long as the turn says.
func (w *world) stored(lengths ...int) {
	w.session = &convstore.Session{Until: time.Now(), Total: len(lengths)}
	for i, n := range lengths {
		id := task.ID(fmt.Sprint("task ", i))
		asked := w.blobs.Hold(fmt.Sprintf(`{"messages":[{"role":"user","content":"%d %s"}]}`, i, strings.Repeat("q", n)))
		said := w.blobs.Hold(fmt.Sprintf(`{"text":"%d %s"}`, i, strings.Repeat("a", n)))
		w.session.Turns = append(w.session.Turns, convstore.Turn{TaskID: id, ContentRef: &asked})
		w.found[id] = taskstore.Found{View: api.Task{TaskID: id, Status: task.Succeeded, OutputRef: &said, Usage: &task.Usage{CompletionTokens: 2}}}
	}
}

func TestTurnsInTheBlobStoreAreShown(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, d *session.Desk) {
		w.stored(1<<10, 8)
		got, err := d.Show(t.Context(), "acme", "s-1", 2)
		if err != nil {
			t.Fatal(err)
		}
		want := []api.Turn{{
			TaskID: "task 0", Status: task.Succeeded, Tokens: 266,
			Messages: json.RawMessage(`[{"role":"user","content":"0 ` + strings.Repeat("q", 1<<10) + `"}]`),
			Answer:   json.RawMessage(`{"role":"assistant","content":"0 ` + strings.Repeat("a", 1<<10) + `"}`),
		}, {
			TaskID: "task 1", Status: task.Succeeded, Tokens: 12,
			Messages: json.RawMessage(`[{"role":"user","content":"1 qqqqqqqq"}]`),
			Answer:   json.RawMessage(`{"role":"assistant","content":"1 aaaaaaaa"}`),
		}}
		if diff := cmp.Diff(want, got.Turns); diff != "" {
			t.Errorf("(-want +got)\n%.2000s", diff)
		}
	})
}

func TestALookFetchesNoMoreThanItShows(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, d *session.Desk) {
		w.stored(1<<20, 1<<20, 5<<20, 1<<20)
		got, err := d.Show(t.Context(), "acme", "s-1", 4)
		if err != nil {
			t.Fatal(err)
		}
		for i, omitted := range []bool{true, true, true, false} {
			if turn := got.Turns[i]; turn.Omitted != omitted || (turn.Messages == nil) != omitted || (turn.Answer == nil) != omitted {
				t.Errorf("turn %d: omitted %t, %d bytes of messages", i, turn.Omitted, len(turn.Messages))
			}
		}
		if n := w.blobs.Calls(); n > 4 {
			t.Errorf("%d contents were fetched, two of them are shown", n)
		}
	})
}

func TestWhatIsLostIsOmittedAndAStoreThatIsAwayIsNot(t *testing.T) {
	for name, c := range map[string]struct {
		store   error
		omitted bool
	}{
		"the content is gone":         {blob.ErrNotFound, true},
		"it is not what it was":       {blob.ErrCorrupt, true},
		"the store does not answer":   {blob.ErrUnavailable, false},
		"it is too large for us only": {blob.ErrTooLarge, false},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world, d *session.Desk) {
				w.stored(1)
				w.blobs.Fail(c.store)
				got, err := d.Show(t.Context(), "acme", "s-1", 1)
				switch {
				case !c.omitted && (fault.CodeOf(err) != fault.Unavailable || fault.RetryAfterOf(err) == 0):
					t.Errorf("%v, want Unavailable with a time to come again", err)
				case c.omitted && (err != nil || !got.Turns[0].Omitted || got.Turns[0].Messages != nil || got.Turns[0].Answer != nil):
					t.Errorf("%+v, %v", got.Turns, err)
				}
			})
		})
	}
}
