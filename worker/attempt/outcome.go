package attempt

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/wire"
)

// Remember adds a counted try to a task's progress.
func Remember(p task.Progress, t *Try, r Result, worker string) task.Progress {
	p.Attempts = max(p.Attempts, t.N)
	return p.Remember(historyOf(t, r, worker))
}

func historyOf(t *Try, r Result, worker string) task.Attempt {
	a := task.Attempt{
		N: t.N, Fence: t.Fence.String(), Worker: worker, Backend: r.Backend,
		StartedAt: r.Started.UTC(), EndedAt: r.Ended.UTC(),
	}
	if r.Err != nil {
		a.Code, a.Class = string(fault.CodeOf(r.Err)), string(fault.ClassOf(r.Err))
		a.Message = messageOf(r.Err)
		if e, ok := errors.AsType[*fault.Error](r.Err); ok {
			a.Status = e.Status
		}
	}
	return a
}

// messageOf is the part of an error that is written for people and never holds
// a payload. What an error wraps is for logs.
func messageOf(err error) string {
	e, ok := errors.AsType[*fault.Error](err)
	if !ok {
		return "internal error" // nobody vouches for its text
	}
	if len(e.Message) <= deadletter.MaxMessage {
		return e.Message
	}
	return strings.ToValidUTF8(e.Message[:deadletter.MaxMessage], "")
}

// TerminalOf builds the terminal that ends a task's generation. Err is nil for
// a success.
func TerminalOf(t *task.Task, p task.Progress, status task.Status, err error, now time.Time) *terminal.Terminal {
	generation := p.Generation
	out := &terminal.Terminal{
		SchemaVersion: task.SchemaVersion, TaskID: t.ID, Status: status, Generation: &generation,
		Tenant: t.Tenant, Kind: t.Kind, Model: t.Model, Class: t.Class, Source: t.Source, Labels: t.Labels,
		Attempts: p.History, CreatedAt: t.Timestamp, EndedAt: now.UTC(),
	}
	if err != nil {
		out.Error = &terminal.Error{Code: fault.CodeOf(err), Message: messageOf(err)}
		if e, ok := errors.AsType[*fault.Error](err); ok {
			out.Error.Status = e.Status
		}
	}
	return out
}

// Produced adds what a try produced to its terminal.
func Produced(out *terminal.Terminal, fence event.Fence, r Result) *terminal.Terminal {
	out.Fence, out.Backend = fence.String(), r.Backend
	out.Output, out.Usage = r.Output, r.Usage
	return out
}

// Letter builds the lineage of a task we give up on. SHA-256 is of the value as
// it came.
func Letter(t *task.Task, p task.Progress, rec wire.Record, err error, now time.Time) deadletter.Letter {
	l := deadletter.Letter{
		TaskID: t.ID, Tenant: t.Tenant, Model: t.Model,
		Disposition: deadletter.Exhausted, Code: fault.CodeOf(err), Message: messageOf(err),
		Attempts: p.Attempts, History: p.History, Generation: p.Generation,
		FirstFailure: p.FirstFailure, DeadAt: now.UTC(), SHA256: sumOf(rec.Value), RedriveJob: p.RedriveJob,
	}
	switch {
	case l.Code == fault.Malformed:
		l.Disposition = deadletter.Undecodable
	case l.Code == fault.Lost:
		l.Disposition = deadletter.SuspectedKiller
	}
	if l.FirstFailure.IsZero() {
		l.FirstFailure = l.DeadAt
	}
	return l
}

// Undecodable builds the letter of a record that is no task, from what its
// headers say. The id is empty unless the key is one.
func Undecodable(rec wire.Record, now time.Time) (deadletter.Letter, *terminal.Terminal) {
	err := fault.New(fault.Malformed, "the record is not a task of a version this worker knows")
	l := deadletter.Letter{
		Disposition: deadletter.Undecodable, Code: fault.Malformed, Message: err.Message,
		DeadAt: now.UTC(), FirstFailure: now.UTC(), SHA256: sumOf(rec.Value),
	}
	l.Tenant, _ = rec.Get(wire.HeaderTenant)
	generation, known := generationOf(rec)
	l.Generation = generation
	id, idErr := task.ParseID(string(rec.Key))
	if idErr != nil {
		return l, nil
	}
	l.TaskID = id
	if l.Tenant == "" || !known {
		return l, nil
	}
	t := &task.Task{ID: id, Tenant: l.Tenant}
	return l, TerminalOf(t, task.Progress{Generation: generation}, task.Dead, err, now)
}

// generationOf reads the generation header; an absent one is generation 0, an
// unreadable one unknown.
func generationOf(rec wire.Record) (uint8, bool) {
	text, ok := rec.Get(wire.HeaderGeneration)
	if !ok {
		return 0, true
	}
	n := 0
	for _, c := range []byte(text) {
		if c < '0' || c > '9' || n > event.MaxGeneration {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return uint8(n), text != "" && n <= event.MaxGeneration
}

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
