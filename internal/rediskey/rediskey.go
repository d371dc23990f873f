// Package rediskey holds the names of everything Penstock keeps in Redis, so
// that its writers and readers agree. None of it is the truth: Kafka is.
//
// What belongs to one task bears the task's results partition as hash tag, so
// that one script may touch all of it on a cluster:
//
//	penstock:{p}:task:<id>      hash: the state of one task, and hints
//	penstock:{p}:result:<id>    string: JSON of the winning terminal
//	penstock:{p}:events:<id>    stream: its events, entry id = event id
//	penstock:{p}:snapshot:<id>  hash: what was folded out of the stream's head
//	penstock:{p}:claim:<id>     hash: who runs the task, what it wrote, how often nothing came of it
//	penstock:{p}:live:<id>      Pub/Sub channel: "<event id> <event JSON>"
//	penstock:{p}:projection     hash {next, target}: how far the partition is applied
//	penstock:{p}:tenant:<t>     sorted set: the tenant's tasks by time of creation
//	penstock:{p}:due            sorted set: open tasks by deadline
//	penstock:{p}:indexed        string: the scan that filled the set before it
//	penstock:{p}:webhook:<id>   hash {o, v}: what became of the task's webhook
//	penstock:{p}:webhooks       string: all of these are there
//	penstock:{c<p>}:projection     hash {next, target}: how far that partition of conversations is applied
//	penstock:{c<p>}:session:<key>  hash {s, u, b}: settings, end of life and bytes of a session
//	penstock:{c<p>}:turns:<key>    list: its turns, oldest first
//	penstock:{c<p>}:turned:<key>   sorted set: the tasks of these by offset
//	penstock:{c<p>}:stored:<id>    string: JSON of a stored response's request; empty: it was deleted
//	penstock:scan               hash: how far the scan has read each tasks topic
//	penstock:scan:lease         string: somebody scans just now
//	penstock:idem:<tenant>:<h>  string: what an idempotency key came with first
//	penstock:queue:<tenant>:<h> sorted set: tasks behind one ordering key, by deadline
//	penstock:call:{<h>}:open    list: tasks that serve calls of one name now
//	penstock:call:{<h>}:left    list: those whose client went away
//	penstock:cancel             Pub/Sub channel: ids whose cancel is durable
package rediskey

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/penstock/penstock/schema/task"
)

// Cancel is the Pub/Sub channel on which cancelled task ids are told.
const Cancel = "penstock:cancel"

func name(partition int32, kind, rest string) string {
	return "penstock:{" + strconv.Itoa(int(partition)) + "}:" + kind + rest
}

// ByPartition groups the indices of what one command is to reach: its keys must
// all be of one partition.
func ByPartition[T any](all []T, partition func(T) int32) map[int32][]int {
	out := map[int32][]int{}
	for i, one := range all {
		p := partition(one)
		out[p] = append(out[p], i)
	}
	return out
}

// Task is the hash of one task.
func Task(partition int32, id task.ID) string { return name(partition, "task:", string(id)) }

// Result is the winning terminal of one task.
func Result(partition int32, id task.ID) string { return name(partition, "result:", string(id)) }

// Events is the stream of one task.
func Events(partition int32, id task.ID) string { return name(partition, "events:", string(id)) }

// Snapshot is the hash of what was folded out of a task's stream.
func Snapshot(partition int32, id task.ID) string { return name(partition, "snapshot:", string(id)) }

// Claim is the hash that says who runs a task.
func Claim(partition int32, id task.ID) string { return name(partition, "claim:", string(id)) }

// Live is the Pub/Sub channel of one task.
func Live(partition int32, id task.ID) string { return name(partition, "live:", string(id)) }

// TaskOfLive is the inverse of Live.
func TaskOfLive(channel string) (task.ID, bool) {
	_, id, ok := strings.Cut(channel, "}:live:")
	return task.ID(id), ok
}

// Projection is the hash that says how far a results partition is applied.
func Projection(partition int32) string { return name(partition, "projection", "") }

// Due is the index of a partition's open tasks by deadline. A member is
// "<generation> <id> <tenant>".
func Due(partition int32) string { return name(partition, "due", "") }

// Indexed says which scan filled Due: where it is missing, Due was lost.
func Indexed(partition int32) string { return name(partition, "indexed", "") }

// Webhook is what became of the webhook of a task or a batch, and Webhooks says that those of
// a partition are there: where it is missing, they were lost.
func Webhook(partition int32, id task.ID) string { return name(partition, "webhook:", string(id)) }

// Webhooks is beside Webhook.
func Webhooks(partition int32) string { return name(partition, "webhooks", "") }

// Scan says how far each partition of tasks and retry topics was scanned for
// open tasks, and ScanLease that somebody does so.
const (
	Scan      = "penstock:scan"
	ScanLease = "penstock:scan:lease"
)

// Tenant is the index of a tenant's tasks in one partition.
func Tenant(partition int32, tenant string) string { return name(partition, "tenant:", tenant) }

// Idempotency is the memory of one idempotency key.
func Idempotency(tenant, key string) string { return "penstock:idem:" + tenant + ":" + hashed(key) }

// Queue is the set of a tenant's tasks that wait behind one ordering key. A
// member is a task's id, its score the deadline in milliseconds.
func Queue(tenant, key string) string { return "penstock:queue:" + tenant + ":" + hashed(key) }

// hashed is a key that is the caller's and may hold anything.
func hashed(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// Calls are the lists of the calls of one name, a hash: those that are served,
// and those whose client went away.
func Calls(name string) (open, left string) {
	return "penstock:call:{" + name + "}:open", "penstock:call:{" + name + "}:left"
}

// conversations is the beginning of what belongs to one partition of
// penstock.conversations, which has a hash tag of its own.
func conversations(partition int32, kind string) string {
	return "penstock:{c" + strconv.Itoa(int(partition)) + "}:" + kind
}

// Conversations is the hash that says how far a partition of
// penstock.conversations is applied.
func Conversations(partition int32) string { return conversations(partition, "projection") }

// Session is what a session is, its turns, and the tasks that these are of. Key
// is that of its records.
func Session(partition int32, key string) (head, turns, order string) {
	return conversations(partition, "session:"+key), conversations(partition, "turns:"+key), conversations(partition, "turned:"+key)
}

// Stored is the request of a stored response.
func Stored(partition int32, id task.ID) string {
	return conversations(partition, "stored:"+string(id))
}
