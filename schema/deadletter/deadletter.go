// Package deadletter defines what a record on `penstock.dead-letters` says of
// itself: key and value are the original bytes, untouched, and the headers
// carry the lineage described here.
package deadletter

import (
	"time"

	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// Disposition says why we gave up: poison and a systemic failure must not look
// alike.
type Disposition string

// Dispositions.
const (
	Exhausted       Disposition = "exhausted"        // every attempt failed
	Undecodable     Disposition = "undecodable"      // the record is not a task
	SuspectedKiller Disposition = "suspected_killer" // three claims without an outcome
	Oversize        Disposition = "oversize"         // the result cannot be carried
)

// Origin is where the record was read when we gave up. With the generation it
// is the identity of a dead letter: duplicates after a crash collapse.
type Origin struct {
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Timestamp time.Time `json:"timestamp"`
	Group     string    `json:"group,omitempty"`
}

// Letter is the lineage of one dead letter.
type Letter struct {
	TaskID       task.ID        `json:"task_id,omitempty"` // empty when undecodable
	Tenant       string         `json:"tenant,omitempty"`
	Model        string         `json:"model,omitempty"`
	Disposition  Disposition    `json:"disposition"`
	Code         fault.Code     `json:"code"`
	Message      string         `json:"message"` // redacted, at most MaxMessage bytes
	Attempts     int            `json:"attempts"`
	History      []task.Attempt `json:"history,omitempty"`
	Origin       Origin         `json:"origin"`
	Generation   uint8          `json:"generation"`
	FirstFailure time.Time      `json:"first_failure,omitzero"`
	DeadAt       time.Time      `json:"dead_at"`
	SHA256       string         `json:"payload_sha256"` // hex, of the value
	RedriveJob   string         `json:"redrive_job,omitempty"`
	Build        string         `json:"build,omitempty"`
}

// MaxMessage bounds Letter.Message in bytes.
const MaxMessage = 512
