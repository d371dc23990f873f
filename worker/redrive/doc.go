// Package redrive puts dead letters back to work.
//
// It keeps an index of penstock.dead-letters (summaries, never payloads) and
// runs redrive jobs: server-side, resumable, rate-limited, and always copy,
// then mark, never delete. A letter is put back in four steps, each of which
// may be done twice without harm:
//
//  1. `reopened` (generation + 1) is published on penstock.results;
//  2. it is read back as the record that won, which is so only if the task is
//     `dead` in the letter's generation and no other redrive was first;
//  3. the task's original bytes are published to its pool's topic;
//  4. the letter is marked in penstock.control.
//
// A job first redrives a canary and waits what becomes of it; it aborts by
// itself when too many tasks end badly again (see guard). Letters that nobody
// will redrive are discarded: hidden, not deleted.
//
// Delivery promise: a letter that a job selected ends as redriven or as
// skipped with a reason, exactly once visibly, whatever crashes and however
// often. Jobs live in penstock.control and are replayed at start; the order of
// that one partition decides which worker runs a job (see ledger).
package redrive
