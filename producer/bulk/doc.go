// Package bulk runs batch jobs: a client's file of up to 50,000 requests, which
// become tasks of class bulk, and the files that such jobs read and write.
//
// State. What there is of files and batches is folded from penstock.control,
// which every process reads from its start, as redrive jobs are (see joblog).
// Contents lie in the blob store: a client's file and a finished output for as
// long as the file lives, collected results as segments until they are joined.
//
// Delivery promise: every request of a batch ends as exactly one line of the
// output or of the error file, whatever crashes and however often. A line counts
// once the entry of its segment is in the log under the epoch of the batch's
// owner; whoever takes over goes on with the lines that have none. Each line's
// task has an id that follows from batch and line, so that submitting it again
// runs nothing again that has ended.
package bulk
