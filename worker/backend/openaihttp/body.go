package openaihttp

import (
	"encoding/json"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend"
)

// body builds a request from the parameters of a task and what is asked.
func body(t *task.Task, ask any) map[string]any {
	out := make(map[string]any, len(t.Params)+4)
	for name, v := range backend.Allowed(t) {
		out[name] = v
	}
	out["model"] = t.Model
	switch t.Kind {
	case task.Chat:
		out["messages"] = ask
	case task.Embedding:
		out["input"] = ask
	default:
		out["prompt"] = ask
	}
	return out
}

// promptOf is what a task that runs alone asks.
func promptOf(t *task.Task) any {
	switch {
	case t.Payload.Messages != nil:
		return t.Payload.Messages
	case t.Kind == task.Chat: // plain text to a chat model
		return []map[string]string{{"role": "user", "content": t.Payload.Text}}
	case t.Payload.Inputs != nil:
		return t.Payload.Inputs
	default:
		return t.Payload.Text
	}
}

// mustJSON writes our own plain values, which cannot fail.
func mustJSON(v any) json.RawMessage {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}
