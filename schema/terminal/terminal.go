// Package terminal defines the record that ends a task, and the one rule that
// makes visible completion exactly once: of the terminals of a generation the
// first in partition order is the visible one, for ever.
package terminal

import (
	"time"

	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// Reopened is the status of the record by which a redrive opens the next
// generation. It is no terminal, but it competes in the same partition by the
// same rule: only the first that follows a `dead` terminal counts.
const Reopened task.Status = "reopened"

// Terminal is the value of a record on `penstock.results`: plain JSON, valid
// against terminal.schema.json, keyed by task id.
type Terminal struct {
	SchemaVersion int         `json:"schema_version"`
	TaskID        task.ID     `json:"task_id"`
	Status        task.Status `json:"status"` // succeeded, failed, cancelled, expired, dead, or reopened

	// Generation is the redrive generation it ends (or, reopened, opens). Nil
	// for a caller's cancel: it applies to the generation that is open at its own
	// offset.
	Generation *uint8 `json:"generation,omitempty"`

	Tenant     string            `json:"tenant"`
	Kind       task.Kind         `json:"kind,omitempty"`
	Model      string            `json:"model,omitempty"`
	Class      task.Class        `json:"class,omitempty"`
	Source     task.Source       `json:"source,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Fence      string            `json:"fence,omitempty"` // decimal; the attempt that produced it
	Backend    string            `json:"backend,omitempty"`
	Output     *task.Output      `json:"output,omitempty"`
	OutputRef  *task.Ref         `json:"output_ref,omitempty"` // instead of Output when it is large
	Usage      *task.Usage       `json:"usage,omitempty"`
	Error      *Error            `json:"error,omitempty"`
	Attempts   []task.Attempt    `json:"attempts,omitempty"`
	RedriveJob string            `json:"redrive_job,omitempty"` // reopened: the job that did it
	CreatedAt  time.Time         `json:"created_at,omitzero"`
	EndedAt    time.Time         `json:"ended_at"`

	// FinishReason is that of the output that OutputRef stands for: who cannot
	// fetch it still sees whether it is whole. Terminals of older workers have none.
	FinishReason string `json:"finish_reason,omitempty"`
}

// Finish says why the output ended, wherever it lies: stop, length, and so on.
// Empty: there is none, or it is not known.
func (t *Terminal) Finish() string {
	if t.Output != nil {
		return t.Output.FinishReason
	}
	return t.FinishReason
}

// Error says why a task did not succeed.
type Error struct {
	Code    fault.Code `json:"code"`
	Message string     `json:"message"` // cause and cure; never a payload
	Status  int        `json:"status,omitempty"`
}

// State is what one partition of `penstock.results` says about a task, up to
// some offset. The zero State is a task that is open in generation 0.
type State struct {
	Generation uint8
	Status     task.Status // empty while the generation is open
	Offset     int64       // of the record that set Status, or that opened the generation
	RedriveJob string      // that opened the generation, if one did
}

// Open reports whether the task has no terminal in its current generation.
func (s State) Open() bool { return s.Status == "" }

// Apply folds the record at an offset into s. The second result is true when
// the record took effect: it is the generation's winner, or a valid reopening.
//
// Records must be applied in offset order. One at or below the last that took
// effect is a replay and changes nothing, so a reader may start over at any
// earlier offset: a late cancel, which carries no generation, does not then end
// the generation that a later redrive opened.
func (s State) Apply(r *Terminal, offset int64) (State, bool) {
	if s != (State{}) && offset <= s.Offset {
		return s, false
	}
	if r.Status == Reopened {
		valid := s.Status == task.Dead && s.Generation < 255 && r.Generation != nil && *r.Generation == s.Generation+1
		if !valid {
			return s, false
		}
		return State{Generation: *r.Generation, Offset: offset, RedriveJob: r.RedriveJob}, true
	}
	if !r.Status.Terminal() || !s.Open() || (r.Generation != nil && *r.Generation != s.Generation) {
		return s, false
	}
	s.Status, s.Offset = r.Status, offset
	return s, true
}
