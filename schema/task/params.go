package task

// Takes reports whether an engine gets to see a parameter of a task of kind k.
// Others stay with us: an engine's priority, cache and media-URL fields are not
// for strangers.
func (k Kind) Takes(param string) bool {
	switch param {
	case "max_tokens", "temperature", "top_p", "top_k", "min_p", "n", "stop", "seed", "presence_penalty", "frequency_penalty",
		"repetition_penalty", "logit_bias", "logprobs", "min_tokens", "ignore_eos":
		return k == Chat || k == Completion
	case "max_completion_tokens", "top_logprobs", "response_format", "tools", "tool_choice", "parallel_tool_calls", "reasoning_effort":
		return k == Chat
	case "best_of", "echo", "suffix":
		return k == Completion
	case "dimensions", "encoding_format":
		return k == Embedding
	}
	return false
}
