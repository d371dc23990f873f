package dev_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/penstock/penstock/cmd/penstock/dev"
	"github.com/penstock/penstock/schema/spec"
)

// contract is openapi.json, which answers are held to.
type contract struct {
	doc      map[string]any
	compiler *jsonschema.Compiler
	event    *jsonschema.Schema
	seen     map[string]bool // "GET /v1/tasks 200"
}

const documentURL = "https://penstock.dev/openapi.json"

func openContract(t *testing.T) *contract {
	t.Helper()
	k := &contract{compiler: jsonschema.NewCompiler(), seen: map[string]bool{}}
	k.compiler.AssertFormat()
	add := func(url, file string) any {
		text, err := spec.FS.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := k.compiler.AddResource(url, doc); err != nil {
			t.Fatal(err)
		}
		return doc
	}
	for _, name := range spec.Names() {
		add("https://penstock.dev/schema/v1/"+name+".schema.json", name+".schema.json")
	}
	k.doc, _ = add(documentURL, "openapi.json").(map[string]any)
	var err error
	if k.event, err = k.compiler.Compile("https://penstock.dev/schema/v1/event.schema.json"); err != nil {
		t.Fatal(err)
	}
	return k
}

// member follows names into an object.
func member(v any, names ...string) any {
	for _, name := range names {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	return v
}

// escape is a name in a JSON pointer.
func escape(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

// response returns the documented answer and its JSON pointer.
func (k *contract) response(method, route string, status int) (any, string) {
	method, code := strings.ToLower(method), fmt.Sprint(status)
	r := member(k.doc, "paths", route, method, "responses", code)
	if ref, ok := member(r, "$ref").(string); ok {
		name := strings.TrimPrefix(ref, "#/components/responses/")
		return member(k.doc, "components", "responses", name), "/components/responses/" + name
	}
	return r, "/paths/" + escape(route) + "/" + method + "/responses/" + code
}

// check holds an answer to the document and returns its body.
func (k *contract) check(t *testing.T, route string, res *http.Response, body []byte) {
	t.Helper()
	what := fmt.Sprintf("%s %s %d", res.Request.Method, route, res.StatusCode)
	documented, pointer := k.response(res.Request.Method, route, res.StatusCode)
	if documented == nil {
		t.Errorf("%s is not documented: %.300s", what, body)
		return
	}
	k.seen[what] = true
	headers, _ := member(documented, "headers").(map[string]any)
	for name := range headers {
		if name != "Preference-Applied" && res.Header.Get(name) == "" {
			t.Errorf("%s has no %s", what, name)
		}
	}
	media, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";")
	content, _ := member(documented, "content").(map[string]any)
	if len(content) == 0 && len(body) == 0 {
		return
	}
	if content[media] == nil {
		t.Errorf("%s is of the undocumented type %q", what, media)
		return
	}
	if media != "application/json" {
		return
	}
	schema, err := k.compiler.Compile(documentURL + "#" + pointer + "/content/" + escape(media) + "/schema")
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err == nil {
		err = schema.Validate(value)
	}
	if err != nil {
		t.Errorf("%s: %v\n%.800s", what, err, body)
	}
}

// ask sends one request and holds the answer to the document. Headers are
// given as name, value, name, value.
func (k *contract) ask(t *testing.T, s *dev.Stack, method, route, path, body string, headers ...string) (status int, data json.RawMessage, text []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if text, err = io.ReadAll(res.Body); err != nil {
		t.Fatal(err)
	}
	k.check(t, route, res, text)
	var envelope struct{ Data json.RawMessage }
	_ = json.Unmarshal(text, &envelope) // not every answer is an envelope
	return res.StatusCode, envelope.Data, text
}

// field is a text member of data.
func field(t *testing.T, data json.RawMessage, name string) string {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatalf("%v in %.200s", err, data)
	}
	text, _ := m[name].(string)
	return text
}

// TestAnswersAreAsDocumented uses the whole API and compares each answer with
// openapi.json: status, headers, type and body.
func TestAnswersAreAsDocumented(t *testing.T) {
	cfg := dev.DefaultConfig()
	cfg.RetryBase, cfg.RetryMax = 10*time.Millisecond, 20*time.Millisecond // a poisoned task dies at once
	_, s, _ := run(t, cfg)
	k := openContract(t)
	ask := func(want int, method, route, path, body string, headers ...string) json.RawMessage {
		t.Helper()
		status, data, text := k.ask(t, s, method, route, path, body, headers...)
		if status != want {
			t.Fatalf("%s %s: %d; want %d: %.300s", method, path, status, want, text)
		}
		return data
	}
	const hello = `{"model":"sim-chat","payload":{"text":"hello"}}`
	submit, batch, forward := "/v1/inference", "/v1/inference/batch", "/api/forward"
	one, events, many := "/v1/tasks/{id}", "/v1/tasks/{id}/events", "/v1/events"

	for _, route := range []string{submit, batch, forward} {
		for _, body := range k.examples(t, route) {
			ask(202, "POST", route, route, body)
		}
	}

	done := field(t, ask(200, "POST", submit, submit, hello, "Prefer", "wait=30"), "task_id")
	ask(400, "POST", submit, submit, `{"model":"sim-chat","payload":{"text":1}}`)
	ask(404, "POST", submit, submit, `{"model":"nobody","payload":{"text":"hello"}}`)
	ask(413, "POST", submit, submit, `{"model":"`+strings.Repeat("x", 257)+`","payload":{"text":"hello"}}`)
	ask(415, "POST", submit, submit, hello, "Content-Type", "text/plain")
	ask(202, "POST", submit, submit, hello, "Idempotency-Key", "k-1")
	ask(422, "POST", submit, submit, `{"model":"sim-chat","payload":{"text":"other"}}`, "Idempotency-Key", "k-1")
	ask(202, "POST", batch, batch, `{"tasks":[`+hello+`,{"payload":{}}]}`)
	ask(200, "POST", batch, batch, `{"tasks":[{"payload":{}}]}`)
	ask(400, "POST", batch, batch, `{"tasks":[]}`)
	ask(413, "POST", batch, batch, `{"tasks":[`+strings.Repeat("1,", 1000)+`1]}`)
	ask(200, "POST", forward, forward, `{"source":"web","payload":{"text":"hello"}}`, "Prefer", "wait=30")
	ask(400, "POST", forward, forward, `{"payload":{"text":"hello"}}`)

	ask(200, "GET", one, "/v1/tasks/"+done, "")
	ask(400, "GET", one, "/v1/tasks/"+done+"?wait=long", "")
	ask(404, "GET", one, "/v1/tasks/task_invented", "")
	for range 300 { // until the courier has joined its group
		if status, _, _ := k.ask(t, s, "GET", one+"/webhook", "/v1/tasks/"+done+"/webhook", ""); status == 200 {
			break
		}
		<-time.After(50 * time.Millisecond)
	}
	ask(200, "GET", one+"/webhook", "/v1/tasks/"+done+"/webhook", "")
	ask(404, "GET", one+"/webhook", "/v1/tasks/task_invented/webhook", "")
	ask(200, "GET", "/v1/webhooks/secret", "/v1/webhooks/secret", "")
	ask(200, "GET", "/v1/tasks", "/v1/tasks?limit=2", "")
	ask(400, "GET", "/v1/tasks", "/v1/tasks?limit=0", "")
	ask(200, "POST", one+"/cancel", "/v1/tasks/"+done+"/cancel", "")
	ask(404, "POST", one+"/cancel", "/v1/tasks/task_invented/cancel", "")

	ticketRoute := one + "/ticket"
	pass := field(t, ask(200, "POST", ticketRoute, "/v1/tasks/"+done+"/ticket", ""), "ticket")
	ask(404, "POST", ticketRoute, "/v1/tasks/task_invented/ticket", "")
	ask(200, "GET", one, "/v1/tasks/"+done+"?ticket="+pass, "")
	ask(200, "POST", "/v1/ws/ticket", "/v1/ws/ticket", "")
	ask(426, "GET", "/v1/ws", "/v1/ws", "")

	last := k.frames(t, s, events, "/v1/tasks/"+done+"/events")
	ask(204, "GET", events, "/v1/tasks/"+done+"/events", "", "Last-Event-ID", last)
	ask(400, "GET", events, "/v1/tasks/"+done+"/events?after=x", "")
	ask(404, "GET", events, "/v1/tasks/task_invented/events", "")
	last = k.frames(t, s, many, "/v1/events?task="+done)
	ask(204, "GET", many, "/v1/events?task="+done, "", "Last-Event-ID", last)
	ask(400, "GET", many, "/v1/events", "")
	ask(404, "GET", many, "/v1/events?task=task_invented", "")

	k.sessions(t, s)
	k.openai(t, s)
	k.responses(t, s)
	k.bulk(t, s)
	ask(200, "GET", "/v1/models", "/v1/models", "")
	ask(200, "GET", "/v1/models/{id}", "/v1/models/sim-chat", "")
	ask(404, "GET", "/v1/models/{id}", "/v1/models/nobody", "")
	for _, probe := range []string{"/v1/health", "/livez", "/readyz", "/startupz"} {
		ask(200, "GET", probe, probe, "")
	}
	k.operator(t, s)
	k.allSeen(t)
}

// examples are the bodies that the document shows for a route: what a reader
// will paste.
func (k *contract) examples(t *testing.T, route string) []string {
	t.Helper()
	media := member(k.doc, "paths", route, "post", "requestBody", "content", "application/json")
	shown, _ := member(media, "examples").(map[string]any)
	if len(shown) == 0 {
		t.Errorf("%s shows no example", route)
	}
	var out []string
	for _, example := range shown {
		body, err := json.Marshal(member(example, "value"))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(body))
	}
	return out
}

// openai uses the routes that OpenAI clients know.
func (k *contract) openai(t *testing.T, s *dev.Stack) {
	t.Helper()
	ask := func(want int, route, body string, headers ...string) {
		t.Helper()
		path := strings.Replace(route, "{engine}", "sim-chat", 1)
		if status, _, text := k.ask(t, s, "POST", route, path, body, headers...); status != want {
			t.Fatalf("POST %s: %d; want %d: %.300s", path, status, want, text)
		}
	}
	const chat, completions, embeddings = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
	for _, route := range []string{chat, completions, "/v1/engines/{engine}/completions", embeddings} {
		for _, body := range k.examples(t, route) {
			ask(200, route, body)
		}
		ask(400, route, `{`)
	}
	for _, body := range append(k.examples(t, "/v1/moderations"), `{"input":["a bomb","a flower"]}`) {
		ask(200, "/v1/moderations", body)
	}
	ask(400, "/v1/moderations", `{"input":1}`)
	const asked = `{"model":"sim-chat","messages":[{"role":"user","content":"hi"}],"max_tokens":2`
	ask(200, chat, asked+`,"stream":true}`)
	ask(400, embeddings, `{"model":"sim-chat","input":"a"}`)
	ask(404, chat, strings.Replace(asked, "sim-chat", "nobody", 1)+`}`)
	ask(413, chat, strings.Replace(asked, "sim-chat", strings.Repeat("x", 257), 1)+`}`)
	ask(200, chat, asked+`}`, "Idempotency-Key", "chat-1")
	ask(422, chat, asked+`,"seed":1}`, "Idempotency-Key", "chat-1")
	ask(504, chat, asked+`,"seed":2}`, "X-Stainless-Read-Timeout", "0.01")
	switchFault(t, s, http.MethodPost, `{"match":"refuse me","status":422}`)
	ask(422, chat, strings.Replace(asked, "hi", "refuse me", 1)+`}`)
	switchFault(t, s, http.MethodDelete, "")
}

// responses makes, reads and deletes responses.
func (k *contract) responses(t *testing.T, s *dev.Stack) {
	t.Helper()
	const all, one = "/v1/responses", "/v1/responses/{id}"
	ask := func(want int, method, route, path, body string) (id string) {
		t.Helper()
		status, _, text := k.ask(t, s, method, route, path, body)
		if status != want {
			t.Fatalf("%s %s: %d; want %d: %.300s", method, path, status, want, text)
		}
		var made struct{ ID string }
		_ = json.Unmarshal(text, &made) // not every answer is a response
		return made.ID
	}
	for _, body := range k.examples(t, all) {
		ask(200, "POST", all, all, body)
	}
	ask(400, "POST", all, all, `{`)
	whole := ask(200, "POST", all, all, `{"model":"sim-chat","input":"hi","max_output_tokens":2}`)
	ask(400, "POST", one+"/cancel", all+"/"+whole+"/cancel", "")
	behind := ask(200, "POST", all, all, `{"model":"sim-chat","input":"hi","background":true}`)
	ask(200, "POST", one+"/cancel", all+"/"+behind+"/cancel", "")
	ask(200, "GET", one, all+"/"+whole, "")
	ask(200, "GET", one+"/input_items", all+"/"+whole+"/input_items", "")
	ask(200, "DELETE", one, all+"/"+whole, "")
	ask(404, "GET", one, all+"/"+whole, "")
	ask(404, "GET", one+"/input_items", all+"/resp_invented/input_items", "")
}

// operator kills a task and puts it back to work.
func (k *contract) operator(t *testing.T, s *dev.Stack) {
	t.Helper()
	ask := func(want int, method, route, path, body string) json.RawMessage {
		t.Helper()
		status, data, text := k.ask(t, s, method, route, path, body)
		if status != want {
			t.Fatalf("%s %s: %d; want %d: %.300s", method, path, status, want, text)
		}
		return data
	}
	switchFault(t, s, http.MethodPost, `{"match":"poison","status":500}`)
	const letters, jobs = "/admin/v1/dead-letters", "/admin/v1/redrives"
	status, data, text := k.ask(t, s, "POST", "/v1/inference", "/v1/inference", `{"model":"sim-chat","payload":{"text":"poison"}}`, "Prefer", "wait=30")
	if status != 200 || field(t, data, "status") != "dead" {
		t.Fatalf("%d: %.300s", status, text)
	}
	id := field(t, data, "task_id")
	var list struct{ Total int }
	for range 100 { // the index reads the topic on its own
		if err := json.Unmarshal(ask(200, "GET", letters, letters, ""), &list); err != nil {
			t.Fatal(err)
		}
		if list.Total > 0 {
			break
		}
		<-time.After(50 * time.Millisecond)
	}
	ask(400, "GET", letters, letters+"?code=nonsense", "")
	ask(200, "GET", letters+"/groups", letters+"/groups", "")
	ask(400, "GET", letters+"/groups", letters+"/groups?limit=0", "")
	ask(200, "GET", letters+"/{id}", letters+"/"+id, "")
	ask(200, "GET", letters+"/{id}", letters+"/"+id+"?payload=true", "")
	ask(400, "GET", letters+"/{id}", letters+"/nonsense", "")
	ask(404, "GET", letters+"/{id}", letters+"/0-99999", "")

	const discards = "/admin/v1/discards"
	ask(200, "POST", discards, discards, `{"filter":{},"reason":"nobody needs it","dry_run":true}`)
	ask(400, "POST", discards, discards, `{"filter":{}}`)
	ask(200, "POST", discards, discards, `{"ids":["`+id+`"],"reason":"nobody needs it"}`)
	ask(200, "GET", letters+"/{id}", letters+"/"+id, "")
	ask(200, "GET", letters, letters+"?state=discarded", "")

	ask(200, "POST", jobs, jobs, `{"filter":{"state":"any"},"dry_run":true}`)
	ask(400, "POST", jobs, jobs, `{}`)
	ask(404, "POST", jobs, jobs, `{"filter":{"tenant":"nobody"}}`)
	switchFault(t, s, http.MethodDelete, "")
	job := jobs + "/" + field(t, ask(202, "POST", jobs, jobs, `{"ids":["`+id+`"],"note":"healed"}`), "id")
	for range 200 {
		if field(t, ask(200, "GET", jobs+"/{id}", job, ""), "state") == "completed" {
			break
		}
		<-time.After(50 * time.Millisecond)
	}
	for _, order := range []string{"pause", "resume", "cancel"} {
		ask(409, "POST", jobs+"/{id}/"+order, job+"/"+order, "")
		ask(404, "POST", jobs+"/{id}/"+order, jobs+"/redrive_0/"+order, "")
	}
	ask(404, "GET", jobs+"/{id}", jobs+"/redrive_0", "")
	ask(200, "GET", jobs, jobs, "")
	ask(400, "GET", jobs, jobs+"?state=nonsense", "")
}

// frames reads a stream to its end, holds each event to event.schema.json, and
// returns the last id.
func (k *contract) frames(t *testing.T, s *dev.Stack, route, path string) (last string) {
	t.Helper()
	status, _, text := k.ask(t, s, "GET", route, path, "", "Accept", "text/event-stream")
	if status != http.StatusOK {
		t.Fatalf("%s: %d: %.300s", path, status, text)
	}
	n := 0
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case "id":
			last = value
		case "data":
			event, err := jsonschema.UnmarshalJSON(strings.NewReader(value))
			if err == nil {
				err = k.event.Validate(event)
			}
			if err != nil {
				t.Errorf("%s: %v in %s", path, err, value)
			}
			n++
		}
	}
	if n == 0 || last == "" {
		t.Fatalf("%s: %d events, last id %q", path, n, last)
	}
	return last
}

// allSeen reports successes that are documented and never came. What only
// trouble or a race brings forth is tested where it arises.
func (k *contract) allSeen(t *testing.T) {
	t.Helper()
	rare := map[string]bool{
		"POST /v1/tasks/{id}/cancel 202":          true, // the winner is not known within two seconds
		"GET /v1/ws 101":                          true, // TestASocketFromEndToEnd
		"POST /admin/v1/redrives/{id}/pause 200":  true, // the job of one letter is over too soon
		"POST /admin/v1/redrives/{id}/resume 200": true,
		"POST /admin/v1/redrives/{id}/cancel 200": true,
	}
	paths, _ := k.doc["paths"].(map[string]any)
	for route, item := range paths {
		methods, _ := item.(map[string]any)
		for method, operation := range methods {
			responses, _ := member(operation, "responses").(map[string]any)
			for status := range responses {
				what := strings.ToUpper(method) + " " + route + " " + status
				if status < "300" && !k.seen[what] && !rare[what] {
					t.Errorf("%s is documented and did not happen", what)
				}
			}
		}
	}
}

func switchFault(t *testing.T, s *dev.Stack, method, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.SimulatorURL()+"/sim/faults", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode >= 300 {
		t.Fatalf("switch faults: %s", res.Status)
	}
}
