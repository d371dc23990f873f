package spec_test

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/conversation"
	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/spec"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/webhook"
)

// read decodes a document of the package.
func read(t *testing.T, file string) any {
	t.Helper()
	text, err := spec.FS.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var doc any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return doc
}

// at follows a JSON pointer without escapes; nil if it leads nowhere.
func at(doc any, pointer string) any {
	for name := range strings.SplitSeq(strings.Trim(pointer, "/"), "/") {
		name = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
		m, _ := doc.(map[string]any)
		doc = m[name]
	}
	return doc
}

func TestSchemasHaveTheLimitsOfTheCode(t *testing.T) {
	for _, c := range []struct {
		file, pointer string
		want          int
	}{
		{"submit", "properties/model/maxLength", api.MaxName},
		{"submit", "properties/session_id/maxLength", api.MaxName},
		{"submit", "properties/ordering_key/maxLength", api.MaxName},
		{"submit", "properties/payload/properties/inputs/maxItems", api.MaxInputs},
		{"submit", "properties/labels/maxProperties", api.MaxLabels},
		{"submit", "properties/labels/propertyNames/maxLength", api.MaxLabel},
		{"submit", "properties/labels/additionalProperties/maxLength", api.MaxLabel},
		{"submit", "properties/webhook/properties/url/maxLength", api.MaxWebhookURL},
		{"forward", "properties/webhook/properties/url/maxLength", api.MaxWebhookURL},
		{"chat", "properties/webhook/properties/url/maxLength", api.MaxWebhookURL},
		{"bulk", "properties/webhook/properties/url/maxLength", api.MaxWebhookURL},
		{"batch", "properties/tasks/maxItems", api.MaxBatch},
		{"chat", "properties/model/maxLength", api.MaxName},
		{"chat", "properties/session_id/maxLength", api.MaxName},
		{"completion", "properties/model/maxLength", api.MaxName},
		{"embedding", "properties/model/maxLength", api.MaxName},
		{"response", "properties/model/maxLength", api.MaxName},
		{"moderation", "properties/model/maxLength", api.MaxName},
		{"forward", "properties/message_id/maxLength", api.MaxName},
		{"forward", "properties/session_id/maxLength", api.MaxName},
		{"session", "properties/instructions/maxLength", api.MaxInstructions},
		{"session", "properties/max_tokens/maximum", api.MaxSessionTokens},
		{"session", "properties/labels/maxProperties", api.MaxLabels},
		{"session", "properties/labels/propertyNames/maxLength", api.MaxLabel},
		{"socketrequest", "properties/ref/maxLength", api.MaxName},
		{"socketrequest", "properties/idempotency_key/maxLength", api.MaxName},
		{"task", "properties/schema_version/const", task.SchemaVersion},
		{"task", "properties/model/maxLength", api.MaxName},
		{"task", "properties/payload/properties/inputs/maxItems", api.MaxInputs},
		{"task", "properties/labels/maxProperties", api.MaxLabels},
		{"terminal", "properties/attempts/maxItems", task.MaxHistory},
		{"terminal", "properties/generation/maximum", 255},
		{"webhook", "properties/attempt/properties/n/maximum", webhook.MaxAttempts},
		{"deadletter", "properties/message/maxLength", deadletter.MaxMessage},
		{"deadletter", "properties/history/maxItems", task.MaxHistory},
	} {
		if got := at(read(t, c.file+".schema.json"), c.pointer); got != float64(c.want) {
			t.Errorf("%s: %s = %v; want %d", c.file, c.pointer, got, c.want)
		}
	}
	openapi := read(t, "openapi.json")
	for pointer, want := range map[string]int{
		"components/parameters/IdempotencyKey/schema/maxLength": api.MaxName,
		"components/schemas/Batch/properties/tasks/maxItems":    api.MaxBatch,
		"components/parameters/SessionId/schema/maxLength":      api.MaxName,
	} {
		if got := at(openapi, pointer); got != float64(want) {
			t.Errorf("openapi: %s = %v; want %d", pointer, got, want)
		}
	}
}

// texts are the members of a list of strings of any type.
func texts[T ~string](of ...T) []any {
	out := make([]any, len(of))
	for i, s := range of {
		out[i] = string(s)
	}
	return out
}

func TestSchemasHaveTheWordsOfTheCode(t *testing.T) {
	sources := texts(task.SourceWeb, task.SourceApp, task.SourceIOT, task.SourceAPI)
	classes := texts(task.Classes()...)
	kinds := texts(task.Completion, task.Chat, task.Embedding)
	var ends []task.Status
	for _, s := range task.Statuses() {
		if s.Terminal() {
			ends = append(ends, s)
		}
	}
	asked, said := api.Ops()
	openapi := "openapi.json"
	for _, c := range []struct {
		file, pointer string
		want          []any
	}{
		{"submit.schema.json", "properties/source/enum", sources},
		{"submit.schema.json", "properties/class/enum", classes},
		{"forward.schema.json", "properties/source/enum", sources},
		{"task.schema.json", "properties/source/enum", sources},
		{"task.schema.json", "properties/class/enum", classes},
		{"task.schema.json", "properties/kind/enum", kinds},
		{"terminal.schema.json", "properties/status/enum", texts(append(slices.Clone(ends), terminal.Reopened)...)},
		{"terminal.schema.json", "properties/kind/enum", kinds},
		{"event.schema.json", "properties/type/enum", texts(event.Queued, event.Started, event.Delta, event.UsageSeen, event.Progress,
			event.Snapshot, event.Restart, event.Gap, event.Succeeded, event.Failed, event.Cancelled, event.Expired, event.Dead, event.Reconnect)},
		{"deadletter.schema.json", "properties/disposition/enum", texts(deadletter.Exhausted, deadletter.Undecodable, deadletter.SuspectedKiller, deadletter.Oversize)},
		{"webhook.schema.json", "properties/step/enum", texts(webhook.Steps()...)},
		{"webhook.schema.json", "properties/status/enum", texts(ends...)},
		{"webhook.schema.json", "properties/state/enum", texts(webhook.States()[1:]...)}, // who is settled is not pending
		{"webhook.schema.json", "properties/attempt/properties/outcome/enum", texts(webhook.Outcomes()...)},
		{"conversation.schema.json", "properties/step/enum", texts(conversation.Steps()...)},
		{"submit.schema.json", "properties/webhook/properties/events/items/enum", texts(webhook.Types(task.FormTask)...)},
		{"forward.schema.json", "properties/webhook/properties/events/items/enum", texts(webhook.Types(task.FormTask)...)},
		{"chat.schema.json", "properties/webhook/properties/events/items/enum", texts(webhook.Types(task.FormTask)...)},
		{"completion.schema.json", "properties/webhook/properties/events/items/enum", texts(webhook.Types(task.FormTask)...)},
		{"embedding.schema.json", "properties/webhook/properties/events/items/enum", texts(webhook.Types(task.FormTask)...)},
		{"bulk.schema.json", "properties/webhook/properties/events/items/enum", texts(webhook.BatchTypes()...)},
		{openapi, "components/schemas/WebhookEvent/properties/type/enum", texts(webhook.Types(task.FormTask)...)},
		{"response.schema.json", "properties/webhook/properties/events/items/enum", texts(webhook.Types(task.FormResponse)...)},
		{openapi, "components/schemas/ResponseEvent/properties/type/enum", texts(webhook.Types(task.FormResponse)...)},
		{openapi, "components/schemas/BatchEvent/properties/type/enum", texts(webhook.BatchTypes()...)},
		{openapi, "components/schemas/WebhookDelivery/properties/type/enum", texts(slices.Concat(webhook.Types(task.FormTask), webhook.Types(task.FormResponse), webhook.BatchTypes())...)},
		{openapi, "components/schemas/WebhookDelivery/properties/state/enum", texts(webhook.States()...)},
		{"socketrequest.schema.json", "properties/op/enum", texts(asked...)},
		{"socketreply.schema.json", "properties/op/enum", texts(said...)},
		{openapi, "components/schemas/Status/enum", texts(task.Statuses()...)},
		{openapi, "components/schemas/FaultCode/enum", texts(fault.Codes()...)},
		{openapi, "components/schemas/Class/enum", classes},
	} {
		if diff := cmp.Diff(c.want, at(read(t, c.file), c.pointer), sorted()); diff != "" {
			t.Errorf("%s: %s (-code +document)\n%s", c.file, c.pointer, diff)
		}
	}
}

// sorted compares lists of words whatever their order.
func sorted() cmp.Option {
	return cmp.Transformer("sorted", func(in []any) []string {
		out := make([]string, len(in))
		for i, v := range in {
			out[i], _ = v.(string)
		}
		slices.Sort(out)
		return out
	})
}

// fields lists the JSON names of a struct.
func fields(of reflect.Type) []string {
	var out []string
	for f := range of.Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "-" {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func TestEveryFieldOfTheCodeIsDocumented(t *testing.T) {
	for _, c := range []struct {
		file, pointer string
		of            reflect.Type
	}{
		{"submit.schema.json", "properties", reflect.TypeFor[api.SubmitRequest]()},
		{"batch.schema.json", "properties", reflect.TypeFor[api.BatchRequest]()},
		{"forward.schema.json", "properties", reflect.TypeFor[api.ForwardRequest]()},
		{"task.schema.json", "properties", reflect.TypeFor[task.Task]()},
		{"task.schema.json", "properties/webhook/properties", reflect.TypeFor[task.Webhook]()},
		{"task.schema.json", "properties/payload/properties", reflect.TypeFor[task.Payload]()},
		{"terminal.schema.json", "properties", reflect.TypeFor[terminal.Terminal]()},
		{"terminal.schema.json", "properties/output/properties", reflect.TypeFor[task.Output]()},
		{"terminal.schema.json", "properties/usage/properties", reflect.TypeFor[task.Usage]()},
		{"terminal.schema.json", "properties/attempts/items/properties", reflect.TypeFor[task.Attempt]()},
		{"terminal.schema.json", "properties/error/properties", reflect.TypeFor[terminal.Error]()},
		{"event.schema.json", "properties", reflect.TypeFor[event.Event]()},
		{"deadletter.schema.json", "properties", reflect.TypeFor[deadletter.Letter]()},
		{"socketrequest.schema.json", "properties", reflect.TypeFor[api.SocketRequest]()},
		{"socketreply.schema.json", "properties", reflect.TypeFor[api.SocketReply]()},
		{"webhook.schema.json", "properties", reflect.TypeFor[webhook.Record]()},
		{"webhook.schema.json", "properties/webhook/properties", reflect.TypeFor[task.Webhook]()},
		{"webhook.schema.json", "properties/attempt/properties", reflect.TypeFor[webhook.Attempt]()},
		{"conversation.schema.json", "properties", reflect.TypeFor[conversation.Record]()},
		{"conversation.schema.json", "properties/settings/properties", reflect.TypeFor[conversation.Settings]()},
		{"conversation.schema.json", "properties/content_ref/properties", reflect.TypeFor[task.Ref]()},
		{"openapi.json", "components/schemas/Task/properties", reflect.TypeFor[api.Task]()},
		{"openapi.json", "components/schemas/WebhookLog/properties", reflect.TypeFor[webhook.Log]()},
		{"openapi.json", "components/schemas/WebhookDelivery/properties", reflect.TypeFor[webhook.Delivery]()},
		{"openapi.json", "components/schemas/WebhookDelivery/properties/attempts/items/properties", reflect.TypeFor[webhook.Attempt]()},
		{"openapi.json", "components/schemas/WebhookEvent/properties", reflect.TypeFor[webhook.Event]()},
		{"openapi.json", "components/schemas/WebhookData/properties", reflect.TypeFor[webhook.Data]()},
		{"openapi.json", "components/schemas/BatchEventData/properties", reflect.TypeFor[webhook.BatchData]()},
		{"openapi.json", "components/schemas/BatchEventData/properties/request_counts/properties", reflect.TypeFor[webhook.BatchCounts]()},
		{"openapi.json", "components/schemas/WebhookSecret/properties", reflect.TypeFor[api.WebhookSecret]()},
		{"openapi.json", "components/schemas/TaskList/properties", reflect.TypeFor[api.TaskList]()},
		{"openapi.json", "components/schemas/Accepted/properties", reflect.TypeFor[api.Accepted]()},
		{"openapi.json", "components/schemas/BatchOutcome/properties", reflect.TypeFor[api.BatchResponse]()},
		{"openapi.json", "components/schemas/BatchOutcome/properties/items/items/properties", reflect.TypeFor[api.BatchItem]()},
		{"openapi.json", "components/schemas/Envelope/properties", reflect.TypeFor[api.Envelope]()},
		{"openapi.json", "components/schemas/Ticket/properties", reflect.TypeFor[api.Ticket]()},
		{"openapi.json", "components/schemas/Error/properties", reflect.TypeFor[api.Error]()},
		{"openapi.json", "components/schemas/Model/properties", reflect.TypeFor[api.Model]()},
		{"session.schema.json", "properties", reflect.TypeFor[api.SessionSettings]()},
		{"openapi.json", "components/schemas/Session/properties", reflect.TypeFor[api.Session]()},
		{"openapi.json", "components/schemas/Turn/properties", reflect.TypeFor[api.Turn]()},
		{"openapi.json", "components/schemas/File/properties", reflect.TypeFor[api.File]()},
		{"openapi.json", "components/schemas/FileList/properties", reflect.TypeFor[api.FileList]()},
		{"openapi.json", "components/schemas/FileDeleted/properties", reflect.TypeFor[api.FileDeleted]()},
		{"bulk.schema.json", "properties", reflect.TypeFor[api.BulkOrder]()},
		{"bulk.schema.json", "properties/output_expires_after/properties", reflect.TypeFor[api.ExpiresAfter]()},
		{"openapi.json", "components/schemas/Bulk/properties", reflect.TypeFor[api.Bulk]()},
		{"openapi.json", "components/schemas/Bulk/properties/request_counts/properties", reflect.TypeFor[api.BulkCounts]()},
		{"openapi.json", "components/schemas/Bulk/properties/errors/properties", reflect.TypeFor[api.BulkErrors]()},
		{"openapi.json", "components/schemas/Bulk/properties/errors/properties/data/items/properties", reflect.TypeFor[api.BulkError]()},
		{"openapi.json", "components/schemas/BulkList/properties", reflect.TypeFor[api.BulkList]()},
	} {
		documented, _ := at(read(t, c.file), c.pointer).(map[string]any)
		if diff := cmp.Diff(fields(c.of), slices.Sorted(maps.Keys(documented))); diff != "" {
			t.Errorf("%s: %s (-code +document)\n%s", c.file, c.pointer, diff)
		}
	}
}

func TestBodiesInOpenAPIAreThoseOfTheSchemaFiles(t *testing.T) {
	openapi := read(t, "openapi.json")
	for name, component := range map[string]string{"submit": "Submit", "forward": "Forward", "chat": "Chat", "completion": "Completion", "embedding": "Embedding", "response": "ResponseRequest", "moderation": "Moderation", "bulk": "BulkOrder", "session": "SessionSettings"} {
		want, ok := read(t, name+".schema.json").(map[string]any)
		if !ok {
			t.Fatalf("%s is no object", name)
		}
		delete(want, "$schema")
		delete(want, "$id")
		if diff := cmp.Diff(any(want), at(openapi, "components/schemas/"+component)); diff != "" {
			t.Errorf("%s (-file +openapi)\n%s", component, diff)
		}
	}
}

// references calls f with each $ref of a document.
func references(doc any, f func(ref string)) {
	switch v := doc.(type) {
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok {
			f(ref)
		}
		for _, member := range v {
			references(member, f)
		}
	case []any:
		for _, item := range v {
			references(item, f)
		}
	}
}

func TestEveryReferenceLeadsSomewhere(t *testing.T) {
	const base = "https://penstock.dev/schema/v1/"
	files := []string{"openapi.json", "asyncapi.json"}
	for _, name := range spec.Names() {
		files = append(files, name+".schema.json")
	}
	for _, file := range files {
		doc := read(t, file)
		references(doc, func(ref string) {
			if pointer, local := strings.CutPrefix(ref, "#/"); local {
				if at(doc, pointer) == nil {
					t.Errorf("%s: %s leads nowhere", file, ref)
				}
			} else if _, err := spec.FS.ReadFile(strings.TrimPrefix(ref, base)); err != nil {
				t.Errorf("%s: %s is no document of ours", file, ref)
			}
		})
	}
}

func TestErrorExamplesHaveTheStatusOfTheirFault(t *testing.T) {
	responses, _ := at(read(t, "openapi.json"), "components/responses").(map[string]any)
	native := 0
	for name, r := range responses {
		e := at(r, "content/application~1json/examples/example/value")
		code, ok := at(e, "error/type").(string)
		if !ok || at(e, "code") == nil {
			continue // of the OpenAI face
		}
		native++
		rule := fault.RuleOf(fault.Code(code))
		if rule.Code != fault.Code(code) {
			t.Errorf("%s: %q is no fault code", name, code)
		}
		want := map[fault.Code]float64{fault.Unauthorized: 401}[rule.Code] // at the door, a caller's own
		if want == 0 {
			want = float64(rule.Status)
		}
		if name == "Slow" || name == "Changed" { // at the door: a request, not a task
			continue
		}
		if got := at(e, "code"); got != want {
			t.Errorf("%s: %s has status %v; want %v", name, code, got, want)
		}
	}
	if native < 10 {
		t.Errorf("%d examples of errors", native)
	}
}

// TestThePageCanShowEveryBody guards against what the reader of the page takes
// badly, without a word: an example outside of examples hides all answers of
// the operation, and a boolean schema or an enum without a type shows as unknown.
func TestThePageCanShowEveryBody(t *testing.T) {
	var walk func(where string, v any, properties bool)
	walk = func(where string, v any, properties bool) {
		switch v := v.(type) {
		case map[string]any:
			if content, ok := v["content"].(map[string]any); ok {
				for media, body := range content {
					if at(body, "example") != nil {
						t.Errorf("%s: %s has example; use examples", where, media)
					}
				}
			}
			if v["enum"] != nil && v["type"] == nil && !properties {
				t.Errorf("%s: enum without type", where)
			}
			for name, member := range v {
				if _, ok := member.(bool); ok && properties {
					t.Errorf("%s/%s: boolean schema", where, name)
				}
				if name != "examples" && name != "default" {
					walk(where+"/"+name, member, name == "properties")
				}
			}
		case []any:
			for _, item := range v {
				walk(where, item, false)
			}
		}
	}
	walk("", read(t, "openapi.json"), false)
}

func TestAsyncAPINamesTheTopics(t *testing.T) {
	channels, _ := at(read(t, "asyncapi.json"), "channels").(map[string]any)
	var documented []string
	for _, c := range channels {
		address, _ := at(c, "address").(string)
		if strings.HasPrefix(address, "/") {
			continue // a route
		}
		expanded := []string{strings.ReplaceAll(address, "{pool}", "default")}
		for _, parameter := range []string{"class", "delay"} {
			values, _ := at(c, "parameters/"+parameter+"/enum").([]any)
			for _, v := range values {
				text, _ := v.(string)
				expanded = append(expanded, strings.ReplaceAll(expanded[0], "{"+parameter+"}", text))
			}
		}
		if len(expanded) > 1 {
			expanded = expanded[1:]
		}
		documented = append(documented, expanded...)
	}
	plan, err := topic.Plan(topic.Params{})
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, planned := range plan {
		want = append(want, planned.Name)
	}
	slices.Sort(want)
	slices.Sort(documented)
	if diff := cmp.Diff(want, documented); diff != "" {
		t.Errorf("topics (-plan +document)\n%s", diff)
	}
}

func TestExamplesOfSocketMessagesCoverTheOps(t *testing.T) {
	asked, said := api.Ops()
	messages := at(read(t, "asyncapi.json"), "components/messages")
	for name, ops := range map[string][]api.Op{"socketRequest": asked, "socketReply": said} {
		examples, _ := at(messages, name+"/examples").([]any)
		for _, e := range examples {
			op, _ := at(e, "payload/op").(string)
			if !slices.Contains(ops, api.Op(op)) {
				t.Errorf("%s: an example has op %q", name, op)
			}
		}
		if name == "socketRequest" && len(examples) != len(ops) {
			t.Errorf("%d examples of %d ops", len(examples), len(ops))
		}
	}
}

// TestAsyncAPINamesTheHeaders reads the frozen records: what each kind bears
// must be documented, and what is required must be there.
func TestAsyncAPINamesTheHeaders(t *testing.T) {
	messages := at(read(t, "asyncapi.json"), "components/messages")
	seen := map[string]bool{}
	for _, g := range frozen(t) {
		kind, _, _ := strings.Cut(g.name, "-")
		message := map[string]string{"task": "task", "terminal": "terminal", "reopened": "terminal", "deadletter": "deadLetter", "control": "control", "webhook": "webhook", "conversation": "conversation"}[kind]
		known, _ := at(messages, message+"/headers/properties").(map[string]any)
		original, _ := at(messages, "task/headers/properties").(map[string]any)
		for _, h := range g.headers {
			ours := known[h] != nil || message == "deadLetter" && (original[h] != nil || strings.HasPrefix(h, "x-"))
			if !ours { // a dead letter keeps the headers it had, and so strangers' too
				t.Errorf("%s: header %s is not documented", g.name, h)
			}
			seen[message+" "+h] = true
		}
		required, _ := at(messages, message+"/headers/required").([]any)
		for _, h := range required {
			if name, _ := h.(string); !slices.Contains(g.headers, name) {
				t.Errorf("%s: header %s is required and absent", g.name, name)
			}
		}
	}
	for _, message := range []string{"task", "terminal"} { // no frozen letter died twice
		known, _ := at(messages, message+"/headers/properties").(map[string]any)
		for h := range known {
			if !seen[message+" "+h] {
				t.Errorf("%s: header %s is documented and on no frozen record", message, h)
			}
		}
	}
}
