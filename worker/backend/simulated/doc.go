// Package simulated is an inference engine that costs time and nothing else:
// a serial device with the cost `base + item × n` for a batch, and streams with
// a fixed time per token. Its answers are a function of the prompt, so a test
// can tell whether a task got its own. Fault switches make it refuse, hang, cut
// a stream or talk nonsense, and it logs which task ran under which fence.
//
// The Engine is a backend.Backend in process; its Handler speaks the OpenAI
// HTTP protocol for anybody else.
package simulated
