package api

import (
	"encoding/json"
	"time"

	"github.com/penstock/penstock/schema/task"
)

// Limits of sessions.
const (
	MaxInstructions  = 64 << 10  // bytes of a session's instructions
	MaxSessionTokens = 1_000_000 // of a session's budget
	MinSessionTTL    = time.Minute
	MaxShownTurns    = 200 // turns of one GET /v1/sessions/{id}; without a limit 50
)

// SessionSettings is the body of POST /v1/sessions/{id}. What is left out has
// its default.
type SessionSettings struct {
	Instructions string            `json:"instructions,omitempty"` // the system message that its tasks begin with
	MaxTokens    int               `json:"max_tokens,omitempty"`   // of what its tasks are given
	TTL          string            `json:"ttl,omitempty"`          // a Go duration, after the latest turn
	Labels       map[string]string `json:"labels,omitempty"`
}

// Session is the data of POST and GET /v1/sessions/{id}.
type Session struct {
	SessionID    string            `json:"session_id"`
	Instructions string            `json:"instructions,omitempty"`
	MaxTokens    int               `json:"max_tokens,omitempty"` // absent: the workers' default
	TTL          string            `json:"ttl"`
	Labels       map[string]string `json:"labels,omitempty"`
	ExpiresAt    time.Time         `json:"expires_at"`
	TurnCount    int               `json:"turn_count"`
	Turns        []Turn            `json:"turns"` // the newest, oldest first
}

// Turn is a task of a session. It is remembered if its status is succeeded.
type Turn struct {
	TaskID   task.ID         `json:"task_id"`
	Status   task.Status     `json:"status"`
	At       time.Time       `json:"at"`                 // when it began
	Messages json.RawMessage `json:"messages,omitempty"` // what the task brought
	Answer   json.RawMessage `json:"answer,omitempty"`   // the message that it is remembered as
	Tokens   int             `json:"tokens,omitempty"`   // of both, counted or guessed
	Omitted  bool            `json:"omitted,omitempty"`  // messages, answer or both are too large to be shown beside newer ones, or past their time
}
