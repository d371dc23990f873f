package redrive

import (
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/joblog"
	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/task"
)

// JobState is where a redrive job stands.
type JobState string

// States of a job.
//
//	pending ─▶ running ─▶ completed | aborted
//	   ▲         │ ▲
//	   │ resume  ▼ │ resume
//	   └─ paused ◀─ pausing       every state above paused ─▶ cancelling ─▶ cancelled
//
// Pending waits for a worker. Pausing and cancelling last while letters in
// flight are finished. A job aborts by itself when too many of its tasks end
// badly again.
const (
	JobPending    JobState = "pending"
	JobRunning    JobState = "running"
	JobPausing    JobState = "pausing"
	JobPaused     JobState = "paused"
	JobCancelling JobState = "cancelling"
	JobCancelled  JobState = "cancelled"
	JobAborted    JobState = "aborted"
	JobCompleted  JobState = "completed"
)

func jobStates() []JobState {
	return []JobState{JobPending, JobRunning, JobPausing, JobPaused, JobCancelling, JobCancelled, JobAborted, JobCompleted}
}

// Ended reports whether nothing will happen to the job any more.
func (s JobState) Ended() bool {
	return s == JobCancelled || s == JobAborted || s == JobCompleted
}

// claimable reports whether a worker may own a job in this state.
func (s JobState) claimable() bool {
	return s == JobPending || s == JobRunning || s == JobPausing || s == JobCancelling
}

// Spec is what the operator asked for.
type Spec struct {
	Filter *Filter `json:"filter,omitempty"` // nil: chosen by ids
	Rate   float64 `json:"rate"`             // letters a second
	Limit  int     `json:"limit,omitempty"`  // 0: none
	Note   string  `json:"note,omitempty"`   // for the audit

	Canary    int     `json:"canary"`     // letters after which the job waits what becomes of them; 0: none
	StopRatio float64 `json:"stop_ratio"` // of ends that may be bad; 1: all
	Force     bool    `json:"force,omitempty"`
}

// CanaryVerdict is how the first letters of a job fared.
type CanaryVerdict string

// Verdicts.
const (
	CanaryNone    CanaryVerdict = "none"    // not asked for, or no letter would follow
	CanaryRunning CanaryVerdict = "running" // its letters are being redriven
	CanaryWaiting CanaryVerdict = "waiting" // for the ends of its tasks
	CanaryPassed  CanaryVerdict = "passed"
	CanaryFailed  CanaryVerdict = "failed"
)

// AuditNote is one thing that somebody ordered.
type AuditNote struct {
	At   time.Time `json:"at"`
	By   string    `json:"by,omitempty"` // as they say: the admin token is no one's
	What string    `json:"what"`         // created, paused, resumed or cancelled
}

// Skip is one letter that was skipped, as an example for people.
type Skip struct {
	ID     Ref     `json:"id"`
	TaskID task.ID `json:"task_id,omitempty"`
	Reason Reason  `json:"reason"`
}

const (
	// maxExamples bounds Job.SkippedExamples.
	maxExamples = 20
	// maxAudit bounds Job.Audit.
	maxAudit = 50
)

// Job is a redrive job as the admin API shows it.
type Job struct {
	ID              string         `json:"id"`
	State           JobState       `json:"state"`
	Reason          string         `json:"reason,omitempty"` // why it stopped by itself
	Owner           string         `json:"owner,omitempty"`  // the worker that runs it
	Spec            Spec           `json:"spec"`
	Total           int            `json:"total"`
	Redriven        int            `json:"redriven"`
	Skipped         int            `json:"skipped"`
	Remaining       int            `json:"remaining"`
	Canary          CanaryVerdict  `json:"canary"`
	Outcomes        Outcomes       `json:"outcomes"`              // of the tasks watched so far
	RateReached     float64        `json:"rate_reached"`          // letters a second, lately
	ETASeconds      float64        `json:"eta_seconds,omitempty"` // at that rate; absent while it stands still
	SkippedFor      map[Reason]int `json:"skipped_for"`
	SkippedExamples []Skip         `json:"skipped_examples"`
	// RedrivenOf counts the redriven letters by disposition.
	RedrivenOf map[deadletter.Disposition]int `json:"redriven_of"`
	Audit      []AuditNote                    `json:"audit"` // oldest first
	CreatedAt  time.Time                      `json:"created_at"`
	UpdatedAt  time.Time                      `json:"updated_at"`
	EndedAt    time.Time                      `json:"ended_at,omitzero"`
}

// job is a Job with what only its runner needs. It belongs to the ledger.
type job struct {
	Job
	seat      joblog.Seat
	dirty     bool  // letters may be half done: it has an owner, or one that did not release it in good order
	inherited bool  // it was dirty when its present owner claimed it
	letters   []Ref // in the order of work; nil once ended
	done      map[Ref]bool
	judged    bool      // the canary passed
	revived   []revived // the latest, at most maxWatched; nil once ended
	speed     meter
}

// view returns a copy that shares nothing with the ledger.
func (j *job) view() Job {
	v := j.Job
	v.Owner = j.seat.Owner
	v.SkippedFor = maps.Clone(v.SkippedFor)
	v.SkippedExamples = slices.Clone(v.SkippedExamples)
	v.RedrivenOf = maps.Clone(v.RedrivenOf)
	v.Audit = slices.Clone(v.Audit)
	v.Remaining = v.Total - v.Redriven - v.Skipped
	v.Canary = j.canary()
	if v.State == JobRunning {
		v.RateReached = j.speed.rate()
	}
	if v.RateReached > 0 && v.Canary != CanaryWaiting {
		v.ETASeconds = math.Ceil(float64(v.Remaining) / v.RateReached)
	}
	if j.Spec.Filter != nil {
		f := *j.Spec.Filter
		v.Spec.Filter = &f
	}
	return v
}

// undone returns the letters without an outcome, in the order of work.
func (j *job) undone() []Ref {
	out := make([]Ref, 0, len(j.letters)-len(j.done))
	for _, r := range j.letters {
		if !j.done[r] {
			out = append(out, r)
		}
	}
	return out
}

func (j *job) canary() CanaryVerdict {
	switch {
	case j.judged:
		return CanaryPassed
	case j.Spec.Canary == 0 || j.Total <= j.Spec.Canary:
		return CanaryNone
	case j.State == JobAborted:
		return CanaryFailed
	case j.Redriven >= j.Spec.Canary:
		return CanaryWaiting
	}
	return CanaryRunning
}

// note keeps who ordered what. The first notes and the latest are kept.
func (j *job) note(e *entry) {
	what := strings.TrimPrefix(string(e.Type), entryPrefix)
	if len(j.Audit) == maxAudit {
		j.Audit = slices.Delete(j.Audit, maxAudit/2, maxAudit/2+1)
	}
	j.Audit = append(j.Audit, AuditNote{At: e.At, By: e.By, What: what})
}

func (j *job) end(s JobState, at time.Time) {
	j.State, j.EndedAt = s, at
	j.seat.Leave()
	j.letters, j.done, j.revived = nil, nil, nil
}
