package wire_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"testing"
	"time"

	"github.com/penstock/penstock/schema/conversation"
	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/webhook"
	"github.com/penstock/penstock/schema/wire"
)

const id task.ID = "task_06eej948000ui6eipa8t38tsq3o4hnf467b19nog4sg5du0u"

const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

var accepted = time.Date(2026, 3, 14, 8, 0, 0, 123_000_000, time.UTC)

// chat is a task with every field but those that exclude one another.
func chat() *task.Task {
	return &task.Task{
		SchemaVersion: task.SchemaVersion, ID: id, Kind: task.Chat, Source: task.SourceWeb, Tenant: "acme", Model: "sim-chat",
		Class: task.Interactive, SessionID: "s-1", OrderingKey: "s-1",
		Payload: task.Payload{
			Messages: json.RawMessage(`[{"role":"user","content":"Grüße, 世界 & <co>"}]`),
			Context:  json.RawMessage(`{"locale":"de"}`),
		},
		Params: task.Params{"max_tokens": json.RawMessage("64"), "temperature": json.RawMessage("0.70")},
		Stream: true, Timestamp: accepted, Deadline: accepted.Add(10 * time.Minute),
		Labels:  map[string]string{"order": "17"},
		Webhook: &task.Webhook{URL: "https://example.com/hook", Events: []string{"succeeded"}},
	}
}

// remembering is a task with the memory of its session.
func remembering() *task.Task {
	t := chat()
	t.Memory, t.OrderingKey = true, task.SessionKey(t.SessionID)
	return t
}

// embedding is a task with nothing that may be left out.
func embedding() *task.Task {
	return &task.Task{
		SchemaVersion: task.SchemaVersion, ID: id, Kind: task.Embedding, Source: task.SourceAPI, Tenant: "acme", Model: "sim-embed",
		Class:     task.Bulk,
		Payload:   task.Payload{Inputs: []json.RawMessage{json.RawMessage(`"one"`), json.RawMessage(`[1,2,3]`)}},
		Timestamp: accepted, Deadline: accepted.Add(24 * time.Hour),
	}
}

// history is two tries of a task that failed for good at the second.
func history() []task.Attempt {
	fence, err := event.NewFence(0, 1, 7, 0)
	if err != nil {
		panic(err) // the fields above fit
	}
	return []task.Attempt{
		{
			N: 1, Fence: fence.String(), Worker: "w-1", Backend: "gpu-1", StartedAt: accepted.Add(time.Second), EndedAt: accepted.Add(2 * time.Second),
			Code: string(fault.Unavailable), Class: string(fault.ClassTask), Status: 503, Message: "the backend answered 503",
		},
		{
			N: 2, Worker: "w-2", Backend: "gpu-2", StartedAt: accepted.Add(8 * time.Second), EndedAt: accepted.Add(38 * time.Second),
			Code: string(fault.Timeout), Class: string(fault.ClassTask), Message: "no answer within 30s",
		},
	}
}

// waiting is the progress of a task on a retry tier.
func waiting() task.Progress {
	return task.Progress{
		Hop: 2, Attempts: 2, Losses: 1, History: history(), FirstFailure: accepted.Add(2 * time.Second),
		ReturnTopic: "penstock.tasks.default.interactive", NotBefore: accepted.Add(45 * time.Second),
	}
}

// redriven is the progress a redrive job gives a task.
func redriven() task.Progress {
	return task.Progress{Generation: 1, Hop: 3, RedriveJob: "job-7", Deadline: accepted.Add(48 * time.Hour)}
}

// ended is a terminal of a status with what every terminal says.
func ended(s task.Status) *terminal.Terminal {
	g := uint8(0)
	return &terminal.Terminal{
		SchemaVersion: task.SchemaVersion, TaskID: id, Status: s, Generation: &g, Tenant: "acme", Kind: task.Chat, Model: "sim-chat",
		Class: task.Interactive, Source: task.SourceWeb, Labels: map[string]string{"order": "17"}, CreatedAt: accepted, EndedAt: accepted.Add(time.Minute),
	}
}

func succeeded() *terminal.Terminal {
	t := ended(task.Succeeded)
	t.Fence, t.Backend = "1099511629568", "gpu-1"
	t.Output = &task.Output{Text: "Hallo <Welt>", FinishReason: "stop", Choices: json.RawMessage(`[{"index":0}]`)}
	t.Usage = &task.Usage{PromptTokens: 9, CompletionTokens: 3, TotalTokens: 12}
	return t
}

func stored() *terminal.Terminal {
	t := ended(task.Succeeded)
	t.OutputRef = &task.Ref{Key: "results/ab/cd", SHA256: hex.EncodeToString(make([]byte, sha256.Size)), Bytes: 5 << 20}
	return t
}

// checked is a task whose payload lies in the blob store.
func checked() *task.Task {
	t := chat()
	t.Payload = task.Payload{Ref: blobOf("2026-03-14", 5<<20)}
	return t
}

// answered is a terminal whose output lies in the blob store.
func answered() *terminal.Terminal {
	t := succeeded()
	t.Output, t.OutputRef = nil, blobOf("2026-03-15", 3<<20)
	return t
}

// answeredInPart is one whose output was cut by its limit.
func answeredInPart() *terminal.Terminal {
	t := answered()
	t.FinishReason = "length"
	return t
}

func blobOf(day string, bytes int64) *task.Ref {
	sum := sha256.Sum256([]byte(day))
	hash := hex.EncodeToString(sum[:])
	return &task.Ref{Key: day + "/" + hash[:2] + "/" + hash, SHA256: hash, Bytes: bytes}
}

func failed() *terminal.Terminal {
	t := ended(task.Failed)
	t.Error = &terminal.Error{Code: fault.Rejected, Message: "the prompt is longer than the model's context", Status: 400}
	return t
}

func dead() *terminal.Terminal {
	t := ended(task.Dead)
	t.Error = &terminal.Error{Code: fault.Timeout, Message: "no answer within 30s"}
	t.Attempts = history()
	return t
}

// anyGeneration is a terminal that applies to the generation open at its offset.
func anyGeneration(s task.Status, code fault.Code) *terminal.Terminal {
	return &terminal.Terminal{
		SchemaVersion: task.SchemaVersion, TaskID: id, Status: s, Tenant: "acme",
		Error: &terminal.Error{Code: code, Message: "stopped"}, EndedAt: accepted.Add(time.Minute),
	}
}

func reopened() *terminal.Terminal {
	g := uint8(1)
	return &terminal.Terminal{
		SchemaVersion: task.SchemaVersion, TaskID: id, Status: terminal.Reopened, Generation: &g, Tenant: "acme",
		RedriveJob: "job-7", EndedAt: accepted.Add(time.Hour),
	}
}

// hooks are the steps of a webhook, by the names of their files.
func hooks(t *testing.T) map[string]*webhook.Record {
	t.Helper()
	body, err := webhook.NewEvent(succeeded(), 0, "https://api.example.com/v1/tasks/"+string(id)).Body()
	if err != nil {
		t.Fatal(err)
	}
	step := func(s webhook.Step, at time.Duration) *webhook.Record {
		return &webhook.Record{SchemaVersion: task.SchemaVersion, Step: s, TaskID: id, Tenant: "acme", At: accepted.Add(at)}
	}
	registered, end, open := step(webhook.Registered, 0), step(webhook.Ended, time.Minute), step(webhook.Reopened, time.Hour)
	tried, settled := step(webhook.Attempted, 61*time.Second), step(webhook.Settled, 67*time.Second)
	registered.Webhook = &task.Webhook{URL: "https://example.com/hook", Events: webhook.Types(task.FormTask)}
	end.Status, end.Offset, end.Event = task.Succeeded, 1<<40+2, body
	open.Generation, open.Offset = 1, 1<<40+9
	tried.Attempt = &webhook.Attempt{N: 1, At: accepted.Add(61 * time.Second), Outcome: webhook.Refused, Status: 503, Next: accepted.Add(66 * time.Second)}
	settled.Attempt = &webhook.Attempt{N: 2, At: accepted.Add(67 * time.Second), Outcome: webhook.Accepted, Status: 204}
	settled.State = webhook.Delivered
	announced, answered := batchAnnounced(t), step(webhook.Registered, 0)
	answered.Webhook = &task.Webhook{URL: "https://example.com/hook", Events: webhook.Types(task.FormResponse), Form: task.FormResponse}
	return map[string]*webhook.Record{
		"webhook-registered": registered, "webhook-ended": end, "webhook-reopened": open,
		"webhook-attempted": tried, "webhook-settled": settled, "webhook-announced": announced, "webhook-registered-response": answered,
	}
}

// batchAnnounced tells of a batch that has ended.
func batchAnnounced(t *testing.T) *webhook.Record {
	t.Helper()
	const batch = "batch_06eej948000ui6eipa8t38t"
	body, err := webhook.BatchBody(webhook.BatchData{
		ID: batch, Status: "completed", Endpoint: "/v1/chat/completions", InputFileID: "file-06eej948000ui6eipa8t38s",
		OutputFileID: "file-06eej9480a0ui6eipa8t38u", RequestCounts: webhook.BatchCounts{Total: 3, Completed: 3}, Metadata: map[string]string{"night": "17"},
	}, accepted.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return &webhook.Record{
		SchemaVersion: task.SchemaVersion, Step: webhook.Announced, BatchID: batch, Tenant: "acme", At: accepted.Add(time.Hour),
		Webhook: &task.Webhook{URL: "https://example.com/hook", Events: webhook.BatchTypes()}, Event: body,
	}
}

// conversations are the records of sessions and of stored responses, by the
// names of their files.
func conversations() map[string]*conversation.Record {
	record := func(s conversation.Step, at time.Duration) *conversation.Record {
		return &conversation.Record{
			SchemaVersion: task.SchemaVersion, Step: s, Tenant: "acme", SessionID: "Müller/7",
			At: accepted.Add(at), Until: accepted.Add(at + 24*time.Hour),
		}
	}
	opened, turned, large := record(conversation.Opened, 0), record(conversation.Turned, time.Second), record(conversation.Turned, time.Minute)
	stored, deleted, gone := record(conversation.Stored, time.Minute), record(conversation.Deleted, time.Hour), record(conversation.Deleted, time.Hour)
	opened.Settings = &conversation.Settings{Instructions: "Be kind & brief.", MaxTokens: 2048, TTLSeconds: 3600, Labels: map[string]string{"desk": "3"}}
	kept := record(conversation.Kept, 0)
	kept.Settings, kept.Until = opened.Settings, kept.Until.Add(36*time.Hour)
	turned.TaskID, turned.Lane = id, "penstock.tasks.default.interactive"
	turned.Content = json.RawMessage(`[{"role":"user","content":"Grüße, 世界 & <co>"}]`)
	large.TaskID, large.Lane, large.ContentRef = id, "penstock.tasks.default.interactive", blobOf("2026-03-14", 5<<20)
	stored.SessionID, stored.TaskID, stored.Content = "", id, json.RawMessage(`{"input":"Hallo"}`)
	gone.SessionID, gone.TaskID = "", id
	deleted.Until, gone.Until = time.Time{}, time.Time{}
	return map[string]*conversation.Record{
		"conversation-opened": opened, "conversation-kept": kept, "conversation-turned": turned, "conversation-turned-claimcheck": large,
		"conversation-stored": stored, "conversation-deleted": deleted, "conversation-stored-deleted": gone,
	}
}

// letter is the lineage of a value.
func letter(value []byte) deadletter.Letter {
	sum := sha256.Sum256(value)
	return deadletter.Letter{
		TaskID: id, Tenant: "acme", Model: "sim-chat", Disposition: deadletter.Exhausted, Code: fault.Timeout,
		Message: "no answer within 30s", Attempts: 2, History: history(),
		Origin: deadletter.Origin{
			Topic: "penstock.tasks.default.interactive", Partition: 7, Offset: 1<<40 + 2,
			Timestamp: accepted, Group: "penstock.worker.default",
		},
		FirstFailure: accepted.Add(2 * time.Second), DeadAt: accepted.Add(time.Minute), SHA256: hex.EncodeToString(sum[:]), Build: "v1.2.3",
	}
}

// undecodable is the lineage of a value that is no task: nothing is known of it.
func undecodable(value []byte) deadletter.Letter {
	l := letter(value)
	l.TaskID, l.Tenant, l.Model, l.History, l.Attempts = "", "", "", nil, 0
	l.Disposition, l.Code, l.Message = deadletter.Undecodable, fault.Malformed, "the record is not a task"
	return l
}

// with returns the record with one header changed, or added if it has none.
func with(r wire.Record, name, value string) wire.Record {
	out := wire.Record{Key: r.Key, Value: r.Value}
	found := false
	for _, h := range r.Headers {
		if h.Key == name {
			h.Value, found = []byte(value), true
		}
		out.Headers = append(out.Headers, h)
	}
	if !found {
		out.Headers = append(out.Headers, wire.Header{Key: name, Value: []byte(value)})
	}
	return out
}
