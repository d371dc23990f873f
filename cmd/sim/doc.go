// Package sim holds no code, only the simulation: the whole of Penstock, with
// several instances of each service, in one testing/synctest bubble over a
// broker and a Redis inside the process, where minutes pass in milliseconds.
//
// A seed makes a plan: some tasks (streams, batches, embeddings, poison, tasks
// that fail at first, deadlines, cancels, repeated submits, webhooks whose
// receivers refuse, are slow or hang up at first) and some faults
// (crashes, drains, members that come and go, links that break, stall or crawl,
// answers of the broker that are errors after the work was done, a Redis that
// is away or empty, engines that fail). The plan runs, everything heals, and a
// checker holds what clients saw and what lies in Kafka against the promises:
//
//   - I1 nothing acknowledged is lost: each accepted task ends.
//   - I2 one visible terminal per task and generation: the fold of
//     penstock.results, polls at every instance and event streams agree.
//   - I3 a terminal that somebody saw never changes.
//   - I4 the tokens of a fence come in order and without gaps, and are the
//     terminal's text when its fence won.
//   - I5 no commit, of all that reach the broker, covers an offset whose outcome
//     was not in the log before.
//   - I6 no false 202, and one id for all submits of one key.
//   - a dead letter comes before the death it tells of, records that are no tasks
//     have one, an answer is that of its own prompt, and in the end no task ended
//     worse than it was ordered.
//   - whoever gave a webhook is told each end that it is for, at least once and
//     under one id, and nobody is told anything but the end that won, word for
//     word; the owner is shown each delivery as made.
//   - I8 when all is closed no goroutine is left.
//
// What a seed replays is the plan: which tasks are submitted when, and which
// faults strike whom when, for how long. The order in which goroutines of one
// instant run is the scheduler's, so two runs of a seed are not identical step
// by step, and a finding may need several runs to show again:
//
//	PENSTOCK_SIM_SEED=42 go test -run TestSimulation -count 20 ./cmd/sim
//
// PENSTOCK_SIM_SEEDS sets how many seeds are run, PENSTOCK_SIM_TASKS the tasks
// of each.
//
// What it does not show: fsync, several brokers and their elections, a clock
// that is wrong on one machine (a bubble has one clock), frozen processes (a
// stalled link is as near as it gets). The tests on real processes do.
package sim
