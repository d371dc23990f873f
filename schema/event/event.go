// Package event defines what a client sees of a task while it runs: an ordered
// stream of events, each with an id that a client can resume after.
//
// Guarantee: events are gap-free and in order within one fence; a new fence is
// announced by Restart, and text of different fences is never glued together.
package event

import (
	"encoding/json"
	"time"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// Type names an event; it is the `event:` field of the SSE frame.
type Type string

// Types of events. A task's terminal status is the type of its last event.
const (
	Queued    Type = "queued"    // accepted; its id is 0-1 and it is not stored
	Started   Type = "started"   // an attempt began
	Delta     Type = "delta"     // a piece of the answer
	UsageSeen Type = "usage"     // token counts so far
	Progress  Type = "progress"  // a long-running task's heartbeat
	Snapshot  Type = "snapshot"  // the text so far, under the id of the last event folded in
	Restart   Type = "restart"   // a new attempt: forget the text so far
	Gap       Type = "gap"       // the events up to its own id are lost for good; the terminal has the full text
	Succeeded Type = "succeeded" // terminals carry the full output
	Failed    Type = "failed"
	Cancelled Type = "cancelled"
	Expired   Type = "expired"
	Dead      Type = "dead"
	Reconnect Type = "reconnect" // the server goes away; come back with the last id. Has no id itself
)

// Event is one event of a task. Only the fields of its type are set.
type Event struct {
	ID       ID                 `json:"id,omitzero"`
	Type     Type               `json:"type"`
	TaskID   task.ID            `json:"task_id,omitempty"` // empty on reconnect
	At       time.Time          `json:"at,omitzero"`
	Attempt  int                `json:"attempt,omitempty"`  // started, restart
	Text     string             `json:"text,omitempty"`     // delta: the piece; snapshot: all so far; restart: all there will be, if it is known
	Index    int                `json:"index,omitempty"`    // delta: which choice
	Choice   json.RawMessage    `json:"choice,omitempty"`   // delta: what the choice has besides its text
	Usage    *task.Usage        `json:"usage,omitempty"`    // usage
	Reason   string             `json:"reason,omitempty"`   // restart, gap, reconnect: why
	Progress json.RawMessage    `json:"progress,omitempty"` // progress: the task kind's own
	Result   *terminal.Terminal `json:"result,omitempty"`   // terminals
}

// Terminal reports whether the event is the last of its generation.
func (t Type) Terminal() bool { return task.Status(t).Terminal() }

// OfTerminal returns the event that ends a generation.
func OfTerminal(t *terminal.Terminal, generation uint8) Event {
	return Event{ID: TerminalID(generation), Type: Type(t.Status), TaskID: t.TaskID, At: t.EndedAt, Result: t}
}
