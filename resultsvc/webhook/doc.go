// Package webhook calls whoever asked to hear how a task, or a batch, ends.
//
// Everything it knows lies on `penstock.webhooks`: who asked, how each
// generation ended, each attempt to tell and what became of it. Members of one
// consumer group share its partitions. The owner of a partition folds it from
// its start, and then matches the partition of the same number of
// `penstock.results` with it.
//
// Guarantee: a task that was accepted with a webhook and ends is told at least
// once, or its delivery is settled as disabled or given up, whoever dies on the
// way. A registration is acknowledged before its task is written; an end counts
// only once the owner has read all that was registered before it, and the
// position among the results moves only once each end is written down; an
// outcome is acted on only when it is written down. What a crash can repeat is a
// call, under the same webhook-id.
//
// The end of a batch is not among the results. Who ran it announces it on
// `penstock.webhooks`, with the event to deliver: there is nothing to match.
package webhook
