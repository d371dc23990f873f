package redrive

import (
	"time"

	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// LetterState is where a dead letter stands.
type LetterState string

// States of a letter.
const (
	LetterDead      LetterState = "dead"      // waiting for an operator
	LetterRedriven  LetterState = "redriven"  // put back to work by a job
	LetterDiscarded LetterState = "discarded" // an operator decided to leave it
	// LetterAny selects letters in every state. No letter has it.
	LetterAny LetterState = "any"
)

// Letter is the summary of one dead letter: what the index keeps and lists
// show. It never holds the payload.
type Letter struct {
	ID           Ref                    `json:"id"`
	State        LetterState            `json:"state"`
	TaskID       task.ID                `json:"task_id,omitempty"` // empty when undecodable
	Tenant       string                 `json:"tenant,omitempty"`
	Model        string                 `json:"model,omitempty"`
	Pool         string                 `json:"pool,omitempty"` // where a redrive would take it
	Class        task.Class             `json:"class,omitempty"`
	Kind         task.Kind              `json:"kind,omitempty"`
	Disposition  deadletter.Disposition `json:"disposition"`
	Code         fault.Code             `json:"code"`
	Message      string                 `json:"message"`
	Attempts     int                    `json:"attempts"`
	Generation   uint8                  `json:"generation"`
	Origin       deadletter.Origin      `json:"origin"`
	FirstFailure time.Time              `json:"first_failure,omitzero"`
	DeadAt       time.Time              `json:"dead_at"`
	Deadline     time.Time              `json:"deadline,omitzero"`
	// RedrivableUntil is when a redrive would come too late, because the task's
	// result would be past its time to live. Zero: no such time is known.
	RedrivableUntil time.Time `json:"redrivable_until,omitzero"`
	Bytes           int       `json:"bytes"` // of the value
	SHA256          string    `json:"payload_sha256,omitempty"`
	RedriveJob      string    `json:"redrive_job,omitempty"` // that opened the generation which died
	RedrivenBy      string    `json:"redriven_by,omitempty"` // the job that put this letter back
	Fingerprint     string    `json:"fingerprint"`           // of its cause: equal for letters that died alike
	Duplicates      int       `json:"duplicates,omitempty"`  // further records of the same death
	Discarded       *Discard  `json:"discarded,omitempty"`   // why it was left, and by whom
}

// identity of a summary; see the type.
func (l *Letter) identity() identity {
	return identity{l.Origin.Topic, l.Origin.Partition, l.Origin.Offset, l.Generation}
}

// older orders letters by death, oldest first; places break ties.
func older(a, b *Letter) int {
	if c := a.DeadAt.Compare(b.DeadAt); c != 0 {
		return c
	}
	return a.ID.compare(b.ID)
}
