package backend

import "github.com/penstock/penstock/schema/task"

// Passes reports whether an engine gets to see a parameter. Others stay with
// us: an engine's priority, cache and media-URL fields are not for strangers.
func Passes(k task.Kind, name string) bool {
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

// Allowed returns the parameters of a task that an engine gets to see.
func Allowed(t *task.Task) task.Params {
	out := make(task.Params, len(t.Params))
	for name, v := range t.Params {
		if Passes(t.Kind, name) {
			out[name] = v
		}
	}
	return out
}
