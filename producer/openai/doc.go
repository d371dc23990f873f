// Package openai turns bodies of the OpenAI API into tasks, and what becomes of
// tasks into bodies of the OpenAI API. It does no I/O: httpapi does.
//
// Guarantee: an answer says that it is whole (a finish_reason for every choice,
// and [DONE] on a stream) only for a task that has succeeded, and then has all
// of its output, whatever the events before it have lost.
package openai
