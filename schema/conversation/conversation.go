// Package conversation defines what lies on `penstock.conversations`: what
// sessions remember, and what the requests of stored responses were.
//
// A session's turn is one of its tasks with what that task brought; what was
// answered is not repeated here: it is the terminal that wins on
// `penstock.results`. A turn is written before its task runs, so whoever has read
// the records of a session to one of its turns knows of every turn that began
// before. All records of one key lie in one partition, in order.
package conversation

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"time"

	"github.com/penstock/penstock/schema/task"
)

// Step says what a record tells.
type Step string

// Steps of conversations.
const (
	Opened  Step = "opened"  // a session has settings; the latest count
	Kept    Step = "kept"    // the settings made then, again, before the log forgets them; they count where nothing newer is known
	Turned  Step = "turned"  // a task of a session began; the first of a task counts
	Stored  Step = "stored"  // a response was asked for; the first of a task counts
	Deleted Step = "deleted" // a session forgets all before it, or a stored response is gone
)

// Steps returns every step.
func Steps() []Step { return []Step{Opened, Kept, Turned, Stored, Deleted} }

// Record is the value of a record on `penstock.conversations`: plain JSON,
// valid against conversation.schema.json.
type Record struct {
	SchemaVersion int       `json:"schema_version"`
	Step          Step      `json:"step"`
	Tenant        string    `json:"tenant"`
	SessionID     string    `json:"session_id,omitempty"` // of a session; absent: of a stored response
	TaskID        task.ID   `json:"task_id,omitempty"`    // turned: the turn's; else the stored response's
	At            time.Time `json:"at"`                   // by the brokers' clock; kept: of the settings that it repeats
	Until         time.Time `json:"until,omitzero"`       // what it tells is forgotten then; deleted: absent

	Settings   *Settings       `json:"settings,omitempty"`    // opened, kept
	Lane       string          `json:"lane,omitempty"`        // turned: topic of the task, within which tasks of a session have an order
	Content    json.RawMessage `json:"content,omitempty"`     // turned: messages that the task brought, as a list; stored: the request
	ContentRef *task.Ref       `json:"content_ref,omitempty"` // instead of Content when it is large
}

// Settings are what a session was opened with.
type Settings struct {
	Instructions string            `json:"instructions,omitempty"` // the system message that its tasks begin with
	MaxTokens    int               `json:"max_tokens,omitempty"`   // of remembered turns that a task is given; 0: the default
	TTLSeconds   int               `json:"ttl_seconds,omitempty"`  // of the session after its latest turn; 0: the default
	Labels       map[string]string `json:"labels,omitempty"`
}

// Key is the key of a record: that of its session, or the id of its task.
func (r *Record) Key() string {
	if r.SessionID != "" {
		return SessionKey(r.Tenant, r.SessionID)
	}
	return string(r.TaskID)
}

// SessionKey is the key of a session's records. Tenants and ids may hold
// anything, so it is a hash of both.
func SessionKey(tenant, sessionID string) string {
	sum := sha256.Sum256([]byte(strconv.Itoa(len(tenant)) + " " + tenant + sessionID))
	return "session." + hex.EncodeToString(sum[:])
}
