package api

import (
	"encoding/json"

	"github.com/penstock/penstock/schema/task"
)

// Op says what a message on GET /v1/ws is. Every message, either way, is one
// JSON object with an op, in one text message of the WebSocket.
type Op string

// What clients say.
const (
	OpSubmit      Op = "submit"      // accept a task, and watch it
	OpSubscribe   Op = "subscribe"   // watch a task, after an event
	OpUnsubscribe Op = "unsubscribe" // watch it no more; it goes on
	OpCancel      Op = "cancel"      // stop a task
	OpInterrupt   Op = "interrupt"   // stop a task and submit another in its place
	OpPing        Op = "ping"
)

// What the server says. Event, Reconnect, and Unsubscribed where the server
// ends a watch itself come unasked; the others answer a client's message and
// bear its ref.
const (
	OpAccepted     Op = "accepted"     // the task is durable
	OpSubscribed   Op = "subscribed"   // its events follow
	OpUnsubscribed Op = "unsubscribed" // nothing more of it comes
	OpOutcome      Op = "outcome"      // the task that a cancel was for, as it ended or is known
	OpEvent        Op = "event"
	OpError        Op = "error"
	OpPong         Op = "pong"
	OpReconnect    Op = "reconnect" // the server closes; connect again and resume
)

// Ops returns what clients say, then what the server says.
func Ops() (client, server []Op) {
	return []Op{OpSubmit, OpSubscribe, OpUnsubscribe, OpCancel, OpInterrupt, OpPing},
		[]Op{OpAccepted, OpSubscribed, OpUnsubscribed, OpOutcome, OpEvent, OpError, OpPong, OpReconnect}
}

// SocketRequest is one message of a client. Only the fields of its op are set.
type SocketRequest struct {
	Op             Op              `json:"op"`
	Ref            string          `json:"ref,omitempty"`             // the client's own; comes back on every answer
	TaskID         task.ID         `json:"task_id,omitempty"`         // subscribe, unsubscribe, cancel, interrupt
	After          string          `json:"after,omitempty"`           // subscribe: id of the last event the client has
	IdempotencyKey string          `json:"idempotency_key,omitempty"` // submit, interrupt
	Watch          *bool           `json:"watch,omitempty"`           // submit, interrupt: send the task's events; true without it
	Body           json.RawMessage `json:"body,omitempty"`            // submit, interrupt: a SubmitRequest
}

// SocketReply is one message of the server. Only the fields of its op are set.
type SocketReply struct {
	Op       Op              `json:"op"`
	Ref      string          `json:"ref,omitempty"`
	TaskID   task.ID         `json:"task_id,omitempty"`  // accepted, subscribed, unsubscribed; error: the task it is about
	Replaces task.ID         `json:"replaces,omitempty"` // accepted: the task that is interrupted
	Repeat   bool            `json:"repeat,omitempty"`   // accepted: the key was seen before, and so is the task
	Task     *Task           `json:"task,omitempty"`     // outcome
	Event    json.RawMessage `json:"event,omitempty"`    // event: as the data of a server-sent event
	Error    *Error          `json:"error,omitempty"`    // error
	Reason   string          `json:"reason,omitempty"`   // unsubscribed, reconnect: why, if nobody asked
	RetryMS  int64           `json:"retry_ms,omitempty"` // error, reconnect: how long to wait
}
