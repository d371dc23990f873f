// Package openaihttp speaks the OpenAI HTTP protocol to an engine: vLLM,
// SGLang, TGI, llama.cpp, Ollama and whatever else serves /v1/chat/completions,
// /v1/completions and /v1/embeddings.
//
// Plain completions of one model and one set of parameters share a call by the
// protocol's prompt array, embeddings by its input array. Chat has no batch
// form, and a stream is its own call: those run alone, side by side.
//
// An engine's answer is untrusted: it is bounded, checked against what was
// asked, and never repeated in an error message, because it may hold a prompt.
package openaihttp
