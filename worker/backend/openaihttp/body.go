package openaihttp

import (
	"encoding/json"

	"github.com/penstock/penstock/schema/task"
)

// passes reports whether an engine gets to see a parameter. Others stay with
// us: an engine's priority, cache and media-URL fields are not for strangers.
func passes(k task.Kind, name string) bool {
	switch name {
	case "max_tokens", "temperature", "top_p", "top_k", "min_p", "n", "stop", "seed", "presence_penalty", "frequency_penalty",
		"repetition_penalty", "logit_bias", "logprobs", "min_tokens", "ignore_eos":
		return k == task.Chat || k == task.Completion
	case "max_completion_tokens", "top_logprobs", "response_format", "tools", "tool_choice", "parallel_tool_calls", "reasoning_effort":
		return k == task.Chat
	case "best_of", "echo", "suffix":
		return k == task.Completion
	case "dimensions", "encoding_format":
		return k == task.Embedding
	}
	return false
}

// allowed returns the task's parameters that the engine gets to see.
func allowed(t *task.Task) task.Params {
	out := make(task.Params, len(t.Params))
	for name, v := range t.Params {
		if passes(t.Kind, name) {
			out[name] = v
		}
	}
	return out
}

// body builds a request from the parameters of a task and what is asked.
func body(t *task.Task, ask any) map[string]any {
	out := make(map[string]any, len(t.Params)+4)
	for name, v := range allowed(t) {
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
