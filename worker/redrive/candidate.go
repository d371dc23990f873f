package redrive

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"slices"
	"time"

	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
)

// candidate is a dead letter as it lies on the topic, read in full.
type candidate struct {
	letter   deadletter.Letter
	original wire.Record // key, value and headers as before it died
	task     *task.Task  // nil when undecodable
	progress task.Progress
	pool     string // where it would go; empty when nobody serves it
}

// readCandidate decodes a record of penstock.dead-letters. The error says that
// the lineage is unreadable; bytes that are not a task are no error.
func (r *Redriver) readCandidate(rec wire.Record) (candidate, error) {
	letter, err := wire.DecodeDeadLetter(rec)
	if err != nil {
		return candidate{}, err
	}
	c := candidate{letter: letter, original: wire.Record{Key: rec.Key, Value: rec.Value, Headers: wire.OriginalHeaders(rec)}}
	if t, p, err := wire.DecodeTask(c.original); err == nil && (letter.TaskID == "" || letter.TaskID == t.ID) {
		c.task, c.progress = t, p
		c.pool = r.poolOf(&c)
	}
	return c, nil
}

// poolOf is the pool the task was in, even if it died on a retry tier; if
// that pool is gone, the one that serves its model now.
func (r *Redriver) poolOf(c *candidate) string {
	for _, name := range []string{c.letter.Origin.Topic, c.progress.ReturnTopic} {
		if pool, _, ok := topic.ParseTasks(name); ok && slices.Contains(r.p.Pools, pool) {
			return pool
		}
	}
	if r.p.PoolOfFunc != nil {
		if pool, ok := r.p.PoolOfFunc(c.task.Model); ok && slices.Contains(r.p.Pools, pool) {
			return pool
		}
	}
	return ""
}

// deadline of the task once it is put back: its own if that is far enough away,
// else the time it was given at first, counted from now. The operator wants the
// task run, however long it lay here; but not past until, when its result would
// be ignored (zero: no such time).
func (c *candidate) deadline(now, until time.Time) time.Time {
	d := c.freshDeadline(now)
	if !until.IsZero() && d.After(until) {
		return until
	}
	return d
}

func (c *candidate) freshDeadline(now time.Time) time.Time {
	first, _, err := wire.DecodeTask(wire.Record{ // without what an earlier redrive set
		Key: c.original.Key, Value: c.original.Value,
		Headers: slices.DeleteFunc(slices.Clone(c.original.Headers), func(h wire.Header) bool { return h.Key == wire.HeaderDeadline }),
	})
	if err != nil {
		return c.task.Deadline
	}
	fresh := now.Add(first.Deadline.Sub(first.Timestamp))
	if fresh.Before(c.task.Deadline) {
		return c.task.Deadline
	}
	return fresh.UTC()
}

// summary is what the index keeps of a candidate.
func (r *Redriver) summary(c *candidate, at Ref, stamped time.Time) *Letter {
	l := &Letter{
		ID: at, TaskID: c.letter.TaskID, Tenant: c.letter.Tenant, Model: c.letter.Model,
		Disposition: c.letter.Disposition, Code: c.letter.Code, Message: c.letter.Message,
		Attempts: c.letter.Attempts, Generation: c.letter.Generation, Origin: c.letter.Origin,
		FirstFailure: c.letter.FirstFailure, DeadAt: c.letter.DeadAt,
		Bytes: len(c.original.Value), SHA256: c.letter.SHA256, RedriveJob: c.letter.RedriveJob,
	}
	if l.DeadAt.IsZero() {
		l.DeadAt = stamped
	}
	if t := c.task; t != nil {
		l.TaskID, l.Tenant, l.Model, l.Pool = t.ID, t.Tenant, t.Model, c.pool
		l.Class, l.Kind, l.Deadline = t.Class, t.Kind, t.Deadline
	}
	l.RedrivableUntil, l.Fingerprint = r.until(l.TaskID), fingerprint(l)
	return l
}

var varying = regexp.MustCompile(`[0-9a-fA-F]{8,}|task_[0-9a-z]+|[0-9]+`)

// fingerprint names a group of letters that died of the same cause: the code,
// the model, and the message without what varies from one to the next.
func fingerprint(l *Letter) string {
	sum := sha256.Sum256([]byte(string(l.Code) + "\x00" + l.Model + "\x00" + varying.ReplaceAllString(l.Message, "#")))
	return hex.EncodeToString(sum[:6])
}
