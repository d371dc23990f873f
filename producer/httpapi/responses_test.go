package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/internal/lookup"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/producer/admit"
	"github.com/penstock/penstock/producer/cancel"
	"github.com/penstock/penstock/producer/openai"
	"github.com/penstock/penstock/producer/responses"
	"github.com/penstock/penstock/producer/responses/responsestest"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/conversation"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

const (
	responseBody   = `{"model":"sim-chat","input":"hi"}`
	backgroundBody = `{"model":"sim-chat","input":"hi","background":true}`
)

// shelf is where responses lie, and their tasks.
type shelf struct {
	responsestest.Shelf
	w      *world
	newest event.Fence
	open   task.Status // of tasks that have no winner
}

// Task is a task that has ended as the world's winner, or has not.
func (s *shelf) Task(_ context.Context, id task.ID, _ time.Duration, _ context.Context) (api.Task, func(), error) {
	if s.w.winner == nil {
		return api.Task{TaskID: id, Status: s.open}, func() {}, nil
	}
	won := *s.w.winner
	won.TaskID = id
	return api.OfTerminal(&won, 0), func() {}, nil
}

func (s *shelf) Newest(context.Context, task.ID) (event.Fence, error) { return s.newest, nil }

func (s *shelf) desk(ids lookup.IDs, cancels *cancel.Desk) *responses.Desk {
	return responses.New(responses.Params{
		Publisher: s, Store: s, Claims: claimcheck.New(nil, claimcheck.Params{}), Tasks: s, Cancels: cancels, IDs: ids,
		Life: time.Hour, MaxChain: 1 << 10, Patience: 20 * time.Millisecond,
	})
}

func (b *bundle) get(target string, headers ...string) *httptest.ResponseRecorder {
	return b.call(http.MethodGet, target, nil, headers...)
}

// objectOf decodes an answer.
func objectOf(t *testing.T, w *httptest.ResponseRecorder) map[string]any {
	t.Helper()
	var out map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
		t.Fatalf("%d %v in %s", w.Code, err, w.Body)
	}
	return out
}

func TestAResponseIsStoredBeforeItsTaskAndFoundByItsID(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	b.winner = succeededAs(&task.Output{Text: "hello", FinishReason: "stop"})
	w := b.post("/v1/responses", `{"model":"sim-chat","input":"hi","service_tier":"auto"}`)
	made := objectOf(t, w)
	if w.Code != 200 || made["status"] != "completed" || w.Header().Get("X-Penstock-Ignored") != "service_tier" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	id, _ := made["id"].(string)
	of, ok := openai.ResponseTask(id)
	if !ok || string(of) != w.Header().Get("X-Task-Id") || len(b.tasks) != 1 || b.tasks[0].ID != of || b.tasks[0].Class != task.Interactive {
		t.Fatalf("%s, %+v", id, b.tasks)
	}
	if r := b.shelf.Records()[0]; len(b.shelf.Records()) != 1 || r.Step != conversation.Stored || r.TaskID != of || r.Tenant != "acme" || !r.Until.After(r.At) {
		t.Errorf("%+v", r)
	}
	found := b.get("/v1/responses/" + id)
	if found.Code != 200 || found.Body.String() != w.Body.String() {
		t.Errorf("%d %s, made as %s", found.Code, found.Body, w.Body)
	}
	for _, other := range []*httptest.ResponseRecorder{
		b.get("/v1/responses/"+id, "Authorization", "Bearer other"), b.get("/v1/responses/resp_1"), b.get("/v1/responses/" + openai.ResponseID(b.minter.New("acme", time.Now()))),
	} {
		if code, _ := failureIn(t, other.Body.Bytes()); other.Code != 404 || code != "not_found" {
			t.Errorf("%d %s", other.Code, other.Body)
		}
	}
	if w := b.get("/v1/responses/"+id, "Authorization", "Bearer acme:submit"); w.Code != 403 {
		t.Errorf("%d", w.Code)
	}
}

func TestWhatIsNotToBeStoredIsNot(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	b.winner = succeededAs(&task.Output{Text: "hello", FinishReason: "stop"})
	made := objectOf(t, b.post("/v1/responses", `{"model":"sim-chat","input":"hi","store":false}`))
	if id, _ := made["id"].(string); made["store"] != false || len(b.shelf.Records()) != 0 || b.get("/v1/responses/"+id).Code != 404 {
		t.Errorf("%v, %v", made, b.shelf.Records())
	}
}

func TestNothingIsAcceptedThatCannotBeStored(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	b.shelf.Refuse(tasktopic.ErrUnknown)
	w := b.post("/v1/responses", responseBody)
	if code, _ := failureIn(t, w.Body.Bytes()); w.Code != 503 || code != "unavailable" || w.Header().Get("Retry-After") == "" || len(b.tasks) != 0 {
		t.Errorf("%d %s, %d tasks", w.Code, w.Body, len(b.tasks))
	}
	b.shelf.Refuse(nil)
	if w := b.post("/v1/responses", `{"model":"nobody","input":"hi"}`); w.Code != 404 || len(b.shelf.Records()) != 0 {
		t.Errorf("%d %s, %d records", w.Code, w.Body, len(b.shelf.Records()))
	}
}

func TestAResponseInTheBackgroundIsAnsweredAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	b.shelf.open = task.Running
	w := b.post("/v1/responses", backgroundBody, "X-Stainless-Timeout", "30")
	made := objectOf(t, w)
	if w.Code != 200 || made["status"] != "queued" || made["background"] != true {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if got := b.tasks[0]; got.Class != task.Standard || time.Until(got.Deadline) < 23*time.Hour {
		t.Errorf("%+v", got)
	}
	if open, left := b.repeats.counts(); open+left != 0 {
		t.Errorf("%d calls are open, %d left", open, left)
	}
	id, _ := made["id"].(string)
	if now := objectOf(t, b.get("/v1/responses/"+id)); now["status"] != "in_progress" || now["created_at"] != made["created_at"] {
		t.Errorf("%v", now)
	}
}

func TestAResponseIsToldOfAsAResponse(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	w := b.post("/v1/responses", `{"model":"sim-chat","input":"hi","background":true,"webhook":{"url":"https://example.com/hook","events":["response.completed"]}}`)
	if w.Code != 200 || w.Header().Get("X-Penstock-Ignored") != "" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if got := b.tasks[0].Webhook; got == nil || got.Form != task.FormResponse || got.URL != "https://example.com/hook" || len(got.Events) != 1 {
		t.Errorf("webhook %+v", got)
	}
	for _, bad := range []string{`{"url":"http://10.0.0.1/"}`, `{"url":"https://example.com/hook","events":["task.failed"]}`} {
		if w := b.post("/v1/responses", `{"model":"sim-chat","input":"hi","background":true,"webhook":`+bad+`}`); w.Code != 400 {
			t.Errorf("%s: %d", bad, w.Code)
		}
	}
}

// framesIn are the events of an answer: their types and numbers.
func framesIn(t *testing.T, body string) (types []string, numbers []int64) {
	t.Helper()
	for frame := range strings.SplitSeq(strings.TrimSuffix(body, "\n\n"), "\n\n") {
		head, data, ok := strings.Cut(strings.TrimLeft(strings.ReplaceAll(frame, ": ping", ""), "\n"), "\ndata: ")
		var e struct {
			Type   string `json:"type"`
			Number int64  `json:"sequence_number"`
		}
		if err := json.Unmarshal([]byte(data), &e); err != nil || !ok || head != "event: "+e.Type {
			t.Fatalf("%v in %q", err, frame)
		}
		types, numbers = append(types, e.Type), append(numbers, e.Number)
	}
	return types, numbers
}

func TestAResponseIsStreamedAndGoneOnWith(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	b.winner = succeededAs(&task.Output{Text: "hello", FinishReason: "stop"})
	b.tale = []event.Event{
		{ID: event.QueuedID(), Type: event.Queued},
		{ID: event.ID{Fence: 1}, Type: event.Started},
		{ID: event.ID{Fence: 1, Seq: 1}, Type: event.Delta, Text: "hel"},
		{},
		event.OfTerminal(b.winner, 0),
	}
	w := b.post("/v1/responses", strings.Replace(backgroundBody, "{", `{"stream":true,`, 1))
	if w.Code != 200 || w.Header().Get("Content-Type") != "text/event-stream" || !strings.Contains(w.Body.String(), "\n: ping\n") {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	types, numbers := framesIn(t, w.Body.String())
	if len(types) != 11 || types[1] != "response.queued" || types[10] != "response.completed" || numbers[10] != 10 {
		t.Fatalf("%v %v", types, numbers)
	}
	id := openai.ResponseID(b.tasks[0].ID)
	rest := b.get("/v1/responses/" + id + "?stream=true&starting_after=5")
	got, at := framesIn(t, rest.Body.String())
	if len(got) != 5 || got[0] != types[6] || at[0] != 6 || at[4] != 10 {
		t.Errorf("%v %v", got, at)
	}
	if end := b.get("/v1/responses/" + id + "?stream=true&starting_after=10"); strings.Count(end.Body.String(), "event: ") != 1 || !strings.Contains(end.Body.String(), "event: response.completed\n") {
		t.Errorf("%s", end.Body)
	}
	if w := b.get("/v1/responses/" + id + "?stream=true&starting_after=x"); w.Code != 400 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestWhoWatchesAnAttemptThatBreaksIsToldSoAndWhoComesBackIsNot(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	b.shelf.open, b.shelf.newest = task.Running, 1
	b.tale = []event.Event{
		{ID: event.ID{Fence: 1}, Type: event.Started},
		{ID: event.ID{Fence: 1, Seq: 1}, Type: event.Delta, Text: "dead"},
		{ID: event.ID{Fence: 2}, Type: event.Restart},
		{ID: event.ID{Fence: 2, Seq: 1}, Type: event.Delta, Text: "live"},
		event.OfTerminal(succeededAs(&task.Output{Text: "live", FinishReason: "stop"}), 0),
	}
	w := b.post("/v1/responses", strings.Replace(backgroundBody, "{", `{"stream":true,`, 1))
	types, numbers := framesIn(t, w.Body.String())
	if n := len(types); n != 7 || types[n-1] != "error" || !strings.Contains(w.Body.String(), `"code":"generation_interrupted"`) {
		t.Fatalf("%v", types)
	}
	seen := b.get("/v1/responses/" + openai.ResponseID(b.tasks[0].ID) + "?stream=true&starting_after=5")
	if got, _ := framesIn(t, seen.Body.String()); seen.Code != 200 || len(got) != 1 || got[0] != "error" { // it resumed, and then the attempt broke
		t.Errorf("%d %v", seen.Code, got)
	}
	b.shelf.newest = 2
	back := b.get("/v1/responses/" + openai.ResponseID(b.tasks[0].ID) + "?stream=true&starting_after=5")
	got, at := framesIn(t, back.Body.String())
	if got[0] != "response.in_progress" || at[0] <= numbers[len(numbers)-1] || strings.Contains(back.Body.String(), "dead") || got[len(got)-1] != "response.completed" {
		t.Errorf("%v %v", got, at)
	}
}

// A stream that can be resumed is cut where it cannot go on: an end that looks
// like one, or an event with a number of its own, would be taken for the rest.
func TestAStreamThatCanBeResumedIsCut(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{"a slow reader": follow.ErrSlow, "trouble that may pass": errors.New("redis is away")} {
		b := setup(t, admit.Params{})
		b.tale, b.taleErr = []event.Event{{ID: event.ID{Fence: 1}, Type: event.Started}}, err
		func() {
			defer func() {
				if cause, _ := recover().(error); !errors.Is(cause, http.ErrAbortHandler) {
					t.Errorf("%s: the stream was not cut", name)
				}
			}()
			b.post("/v1/responses", strings.Replace(backgroundBody, "{", `{"stream":true,`, 1))
		}()
	}
	t.Run("a server that goes away", func(t *testing.T) {
		b := setup(t, admit.Params{})
		b.tale = []event.Event{{ID: event.ID{Fence: 1}, Type: event.Started}}
		defer func() {
			if cause, _ := recover().(error); !errors.Is(cause, http.ErrAbortHandler) {
				t.Error("the stream was not cut")
			}
		}()
		time.AfterFunc(20*time.Millisecond, b.drain)
		b.post("/v1/responses", strings.Replace(backgroundBody, "{", `{"stream":true,`, 1))
	})
	b := setup(t, admit.Params{})
	b.tale, b.taleErr = []event.Event{{ID: event.ID{Fence: 1}, Type: event.Started}}, follow.ErrSlow
	w := b.post("/v1/responses", `{"model":"sim-chat","input":"hi","store":false,"stream":true}`)
	if types, _ := framesIn(t, w.Body.String()); types[len(types)-1] != "error" {
		t.Errorf("%v", types)
	}
}

func TestOnlyAResponseInTheBackgroundOutlivesItsClient(t *testing.T) {
	t.Parallel()
	for body, stopped := range map[string]int{responseBody: 1, backgroundBody: 0} {
		b := setup(t, admit.Params{})
		b.tale = []event.Event{{ID: event.ID{Fence: 1}, Type: event.Started}}
		ctx, hangUp := context.WithTimeout(t.Context(), 50*time.Millisecond)
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/responses", strings.NewReader(strings.Replace(body, "{", `{"stream":true,`, 1)))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer acme")
		func() {
			defer hangUp()
			defer func() { _ = recover() }() // the connection is cut
			b.handler.ServeHTTP(httptest.NewRecorder(), r)
		}()
		if len(b.ends) != stopped {
			t.Errorf("%s: %d were cancelled", body, len(b.ends))
		}
		if open, left := b.repeats.counts(); open+left != 0 {
			t.Errorf("%s: %d calls are open, %d left", body, open, left)
		}
	}
}

func TestAResponseIsCancelledOnlyInTheBackground(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	id, _ := objectOf(t, b.post("/v1/responses", backgroundBody))["id"].(string)
	b.winner = endedAs(task.Cancelled, fault.Cancelled, 0)
	for range 2 {
		if got := objectOf(t, b.post("/v1/responses/"+id+"/cancel", "")); got["status"] != "cancelled" || got["id"] != id {
			t.Errorf("%v", got)
		}
	}
	b.winner = succeededAs(&task.Output{Text: "a", FinishReason: "stop"})
	waited, _ := objectOf(t, b.post("/v1/responses", responseBody))["id"].(string)
	if w := b.post("/v1/responses/"+waited+"/cancel", ""); w.Code != 400 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := b.post("/v1/responses/resp_1/cancel", ""); w.Code != 404 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestADeletedResponseIsGone(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	b.winner = succeededAs(&task.Output{Text: "a", FinishReason: "stop"})
	id, _ := objectOf(t, b.post("/v1/responses", responseBody))["id"].(string)
	if got := objectOf(t, b.call(http.MethodDelete, "/v1/responses/"+id, nil)); got["deleted"] != true || got["id"] != id || got["object"] != "response" {
		t.Errorf("%v", got)
	}
	for _, w := range []*httptest.ResponseRecorder{
		b.get("/v1/responses/" + id), b.call(http.MethodDelete, "/v1/responses/"+id, nil), b.get("/v1/responses/" + id + "/input_items"),
	} {
		if w.Code != 404 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	w := b.post("/v1/responses", `{"model":"sim-chat","input":"more","previous_response_id":"`+id+`"}`)
	if code, param := failureIn(t, w.Body.Bytes()); w.Code != 404 || code != "previous_response_not_found" || param != "previous_response_id" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestAResponseFollowsAnother(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	b.winner = succeededAs(&task.Output{Text: "a", FinishReason: "stop"})
	follow := func(previous, input string) *httptest.ResponseRecorder {
		return b.post("/v1/responses", `{"model":"sim-chat","instructions":"i","input":"`+input+`","previous_response_id":"`+previous+`"}`)
	}
	first, _ := objectOf(t, b.post("/v1/responses", responseBody))["id"].(string)
	second, _ := objectOf(t, follow(first, "two"))["id"].(string)
	follow(second, "three")
	want := `[{"role":"system","content":"i"},{"role":"user","content":"hi"},{"role":"assistant","content":"a"},{"role":"user","content":"two"},` +
		`{"role":"assistant","content":"a"},{"role":"user","content":"three"}]`
	if got := string(b.tasks[2].Payload.Messages); got != want {
		t.Errorf("%s", got)
	}
	large, _ := objectOf(t, b.post("/v1/responses", `{"model":"sim-chat","input":"`+strings.Repeat("x", 2<<10)+`"}`))["id"].(string)
	if w := follow(large, "more"); w.Code != 413 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	b.winner = endedAs(task.Failed, fault.Rejected, 422)
	if w := follow(first, "of a failure"); w.Code != 400 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestTheItemsOfAResponseComeInPages(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	b.winner = succeededAs(&task.Output{Text: "a", FinishReason: "stop"})
	id, _ := objectOf(t, b.post("/v1/responses", `{"model":"sim-chat","input":[{"role":"user","content":"a"},{"id":"fc_mine","type":"function_call","call_id":"c","name":"f","arguments":"{}"},
		{"type":"function_call_output","call_id":"c","output":"r"}]}`))["id"].(string)
	suffix := strings.TrimPrefix(id, "resp_")
	for query, want := range map[string]string{
		"":                                 "fco_" + suffix + "_in_2 fc_mine msg_" + suffix + "_in_0 false",
		"?order=asc&limit=2":               "msg_" + suffix + "_in_0 fc_mine true",
		"?order=asc&limit=2&after=fc_mine": "fco_" + suffix + "_in_2 false",
		"?after=msg_" + suffix + "_in_0":   "false",
		"?limit=1&include[]=x&order=desc":  "fco_" + suffix + "_in_2 true",
		"?limit=0":                         "400",
		"?order=up":                        "400",
		"?after=nobody":                    "400",
	} {
		w := b.get("/v1/responses/" + id + "/input_items" + query)
		got := "400"
		if w.Code == 200 {
			var list struct {
				Data    []struct{ ID string }
				FirstID *string `json:"first_id"`
				LastID  *string `json:"last_id"`
				HasMore bool    `json:"has_more"`
			}
			if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil {
				t.Fatal(err)
			}
			got = ""
			for _, it := range list.Data {
				got += it.ID + " "
			}
			if n := len(list.Data); n > 0 && (*list.FirstID != list.Data[0].ID || *list.LastID != list.Data[n-1].ID) {
				t.Errorf("%s: %s", query, w.Body)
			}
			if got += "false"; list.HasMore {
				got = strings.TrimSuffix(got, "false") + "true"
			}
		}
		if got != want {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
		}
	}
	if w := b.get("/v1/responses/" + id + "/input_items"); !strings.Contains(w.Body.String(), `"content":[{"text":"a","type":"input_text"}]`) {
		t.Errorf("%s", w.Body)
	}
}

func TestARetryJoinsTheResponseThatItRepeats(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	first := objectOf(t, b.post("/v1/responses", backgroundBody, "Idempotency-Key", "k"))
	again := objectOf(t, b.post("/v1/responses", backgroundBody, "Idempotency-Key", "k"))
	if first["id"] != again["id"] || first["created_at"] != again["created_at"] || len(b.tasks) != 1 || len(b.shelf.Records()) != 1 {
		t.Errorf("%v, then %v: %d tasks, %d records", first, again, len(b.tasks), len(b.shelf.Records()))
	}
}

func TestTheFaultOfAResponseNamesItsMember(t *testing.T) {
	t.Parallel()
	b := setup(t, admit.Params{})
	for body, want := range map[string]string{
		`{"model":"sim-chat"}`:                              "input",
		`{"model":"org/sim-embed","input":"a"}`:             "model",
		`{"model":"sim-chat","input":"a","background":1}`:   "background",
		`{"model":"sim-chat","input":[{"type":"unheard"}]}`: "input[0].type",
	} {
		w := b.post("/v1/responses", body)
		if _, param := failureIn(t, w.Body.Bytes()); w.Code != 400 || param != want {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	b.winner = endedAs(task.Dead, fault.Unavailable, 500)
	if w := b.post("/v1/responses", responseBody); w.Code != 503 || w.Header().Get("X-Should-Retry") != "false" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
