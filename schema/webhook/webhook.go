// Package webhook defines what lies on `penstock.webhooks`, from which the
// state of every delivery can be folded, and the event that is delivered.
//
// A task's webhook is registered before the task is published, so whoever has
// read the topic to its end knows of it before the task can have ended. For
// each generation the terminal that won is noted as ended; each failed attempt
// to deliver it follows, and in the end it is settled. All records of a task
// lie in one partition, of the same number as its terminals.
//
// A batch has no terminal among the results that could be matched. Whoever runs
// it writes, once it has ended, one record that says it all: who wants to hear
// of it and the event. From there on its delivery is as any other.
package webhook

import (
	"encoding/json"
	"time"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// Step says what a record tells.
type Step string

// Steps of a webhook. The first of each, per generation and number, counts.
const (
	Registered Step = "registered" // somebody wants to hear how the task ends
	Announced  Step = "announced"  // a batch has ended, and somebody wants to hear of it; a delivery begins
	Ended      Step = "ended"      // the terminal that won a generation; a delivery begins if it is wanted
	Reopened   Step = "reopened"   // a redrive opened the next generation
	Attempted  Step = "attempted"  // a delivery failed and will be tried again
	Settled    Step = "settled"    // a delivery is over
)

// Steps returns every step.
func Steps() []Step { return []Step{Registered, Announced, Ended, Reopened, Attempted, Settled} }

// State says how far a delivery is.
type State string

// States of a delivery.
const (
	Pending   State = "pending"   // it will be tried, again if need be
	Delivered State = "delivered" // the receiver answered 2xx
	Disabled  State = "disabled"  // the receiver answered 410: it wants no more of this
	GivenUp   State = "given_up"  // every attempt failed, or there were too many deliveries like it
)

// States returns every state.
func States() []State { return []State{Pending, Delivered, Disabled, GivenUp} }

// Outcome says how one attempt went.
type Outcome string

// Outcomes of an attempt.
const (
	Accepted    Outcome = "accepted"    // 2xx
	Gone        Outcome = "gone"        // 410
	Refused     Outcome = "refused"     // any other status; redirects are not followed
	TimedOut    Outcome = "timed_out"   // no answer in time
	Unreachable Outcome = "unreachable" // no connection, or it broke
	Prohibited  Outcome = "prohibited"  // the address may not be called
)

// Outcomes returns every outcome.
func Outcomes() []Outcome {
	return []Outcome{Accepted, Gone, Refused, TimedOut, Unreachable, Prohibited}
}

// Record is the value of a record on `penstock.webhooks`: plain JSON, valid
// against webhook.schema.json, keyed by its subject.
type Record struct {
	SchemaVersion int           `json:"schema_version"`
	Step          Step          `json:"step"`
	TaskID        task.ID       `json:"task_id,omitempty"`
	BatchID       string        `json:"batch_id,omitempty"` // instead of TaskID
	Tenant        string        `json:"tenant"`
	Generation    uint8         `json:"generation"`        // that ended, was opened or is delivered; registered, and of batches: 0
	At            time.Time     `json:"at"`                // by the brokers' clock
	Webhook       *task.Webhook `json:"webhook,omitempty"` // registered and announced

	Status task.Status     `json:"status,omitempty"`         // ended: as which
	Offset int64           `json:"results_offset,omitempty"` // ended and reopened: of the record on penstock.results
	Event  json.RawMessage `json:"event,omitempty"`          // ended and announced: the body to deliver, byte for byte; absent if it is not wanted

	Attempt *Attempt `json:"attempt,omitempty"` // attempted; settled, unless it was given up without one
	State   State    `json:"state,omitempty"`   // settled: as which
}

// Subject is the id of what a record is about, and its key: a task or a batch.
func (r *Record) Subject() string {
	if r.BatchID != "" {
		return r.BatchID
	}
	return string(r.TaskID)
}

// Kind is the type of the event that a record of the steps ended and announced
// has to deliver; empty if there is none.
func (r *Record) Kind() string { return typeOfEvent(r.Event) }

// Attempt is one call of a receiver.
type Attempt struct {
	N       int       `json:"n"` // from 1
	At      time.Time `json:"at"`
	Outcome Outcome   `json:"outcome"`
	Status  int       `json:"status,omitempty"` // of the answer, if there was one
	Next    time.Time `json:"next,omitzero"`    // when it is tried again; zero: never
}

// Fold is the state of the task's results as a record of the steps ended and
// reopened tells it.
func (r *Record) Fold() terminal.State {
	return terminal.State{Generation: r.Generation, Status: r.Status, Offset: r.Offset}
}
