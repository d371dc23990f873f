// Package history checks what clients saw of tasks against the promise: the
// first terminal of a generation wins, every reader sees that one, it never
// changes, and only a dead task is reopened.
//
// A Recorder notes each call with its beginning and end; Check asks porcupine
// whether some order of the calls, each at one moment between the two, is one
// that a single register per task could have shown. Porcupine's method is that
// of Lowe, "Testing for linearizability" (2017).
package history
