package dev_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/cmd/penstock/dev"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend/simulated"
)

// sessions uses the routes of sessions.
func (k *contract) sessions(t *testing.T, s *dev.Stack) {
	t.Helper()
	ask := func(want int, method, path, body string, headers ...string) {
		t.Helper()
		if status, _, text := k.ask(t, s, method, "/v1/sessions/{id}", path, body, headers...); status != want {
			t.Fatalf("%s %s: %d; want %d: %.300s", method, path, status, want, text)
		}
	}
	const one = "/v1/sessions/contract"
	for _, body := range k.examples(t, "/v1/sessions/{id}") {
		ask(201, "POST", one, body)
		ask(200, "POST", one, body)
	}
	ask(400, "POST", one, `{"ttl":"1s"}`)
	ask(400, "POST", one, `{"instruction":"a typo"}`)
	ask(413, "POST", one, `{"instructions":"`+strings.Repeat("é", api.MaxInstructions/2+1)+`"}`)
	ask(415, "POST", one, `{}`, "Content-Type", "text/plain")
	ask(200, "GET", one, "")
	ask(400, "GET", one+"?limit=0", "")
	ask(404, "GET", "/v1/sessions/nobody", "")
	ask(413, "GET", "/v1/sessions/"+strings.Repeat("x", 257), "")
	ask(204, "DELETE", one, "")
	ask(204, "DELETE", one, "")
	ask(404, "GET", one, "")
}

// said is a message.
type said struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// reply is what the simulator answers to messages, in so many words.
func reply(t *testing.T, words int, to ...said) string {
	t.Helper()
	prompt, err := json.Marshal(to)
	if err != nil {
		t.Fatal(err)
	}
	return simulated.Text(string(prompt), words)
}

func TestASessionRemembersOverEveryDoor(t *testing.T) {
	_, s, _ := run(t, dev.DefaultConfig())
	k := openContract(t)
	post := func(route, path, body string, headers ...string) json.RawMessage {
		t.Helper()
		status, data, text := k.ask(t, s, "POST", route, path, body, headers...)
		if status > 202 {
			t.Fatalf("POST %s: %d %.300s", path, status, text)
		}
		return data
	}
	path := "/v1/sessions/a%2Fb%20%C3%BC%2520%3F"
	name := `"session_id":"a/b ü%20?","memory":true`
	post("/v1/sessions/{id}", path, `{"instructions":"be brief"}`)
	talk := []said{{"system", "be brief"}}
	turn := func(text, got string) {
		t.Helper()
		talk = append(talk, said{"user", text})
		want := reply(t, len(strings.Fields(got)), talk...)
		if got != want || got == "" {
			t.Fatalf("to %.20q it was answered %q; want %q, which is the answer to %d messages", text, got, want, len(talk))
		}
		talk = append(talk, said{"assistant", got})
	}
	answered := func(data json.RawMessage) string {
		t.Helper()
		var view api.Task
		if err := json.Unmarshal(data, &view); err != nil || view.Output == nil {
			t.Fatalf("%s: %v", data, err)
		}
		return view.Output.Text
	}
	turn("one", answered(post("/v1/inference", "/v1/inference",
		`{"model":"sim-chat","payload":{"text":"one"},"params":{"max_tokens":5},`+name+`}`, "Prefer", "wait=30")))
	var chat struct{ Choices []struct{ Message said } }
	_, _, text := k.ask(t, s, "POST", "/v1/chat/completions", "/v1/chat/completions",
		`{"model":"sim-chat","messages":[{"role":"user","content":"two"}],"max_tokens":5,`+name+`}`)
	if err := json.Unmarshal(text, &chat); err != nil || len(chat.Choices) != 1 {
		t.Fatalf("%s: %v", text, err)
	}
	turn("two", chat.Choices[0].Message.Content)
	turn("three", answered(post("/v1/inference", "/v1/inference",
		`{"model":"sim-chat","payload":{"messages":[{"role":"user","content":"three"}]},"params":{"max_tokens":5},`+name+`}`, "Prefer", "wait=30")))

	turn("four", answered(post("/api/forward", "/api/forward", `{"source":"web","payload":{"text":"four"},`+name+`}`, "Prefer", "wait=30")))
	var list api.BatchResponse
	if err := json.Unmarshal(post("/v1/inference/batch", "/v1/inference/batch", `{"tasks":[
		{"model":"sim-chat","payload":{"text":"five"},"params":{"max_tokens":5},`+name+`},
		{"model":"sim-chat","stream":true,"payload":{"text":"six"},"params":{"max_tokens":5},`+name+`}]}`), &list); err != nil || list.Accepted != 2 {
		t.Fatalf("%+v: %v", list, err)
	}
	for i, text := range []string{"five", "six"} {
		status, data, body := k.ask(t, s, "GET", "/v1/tasks/{id}", "/v1/tasks/"+string(list.Items[i].Accepted.TaskID)+"?wait=30", "")
		if status != 200 {
			t.Fatalf("%d: %.300s", status, body)
		}
		turn(text, answered(data))
	}

	var shown api.Session
	status, data, text := k.ask(t, s, "GET", "/v1/sessions/{id}", path+"?limit=2", "")
	if err := json.Unmarshal(data, &shown); status != 200 || err != nil {
		t.Fatalf("%d: %.300s", status, text)
	}
	var turns []said
	for _, turn := range shown.Turns {
		var one said
		if err := json.Unmarshal(turn.Answer, &one); err != nil || turn.Status != task.Succeeded {
			t.Fatalf("%+v: %v", turn, err)
		}
		turns = append(turns, one)
	}
	if diff := cmp.Diff([]said{talk[len(talk)-3], talk[len(talk)-1]}, turns); diff != "" || shown.TurnCount != 6 || shown.SessionID != "a/b ü%20?" {
		t.Errorf("%d turns of %q\n%s", shown.TurnCount, shown.SessionID, diff)
	}

	if status, _, text := k.ask(t, s, "DELETE", "/v1/sessions/{id}", path, ""); status != 204 {
		t.Fatalf("%d: %.300s", status, text)
	}
	talk = nil
	post("/v1/sessions/{id}", path, `{"max_tokens":1000000}`)
	for _, text := range []string{strings.Repeat("a large one ", 1<<15), "and after it"} { // the first lies in the blob store
		turn(text, answered(post("/v1/inference", "/v1/inference",
			`{"model":"sim-chat","payload":{"text":"`+text+`"},"params":{"max_tokens":5},`+name+`}`, "Prefer", "wait=30")))
	}
}
