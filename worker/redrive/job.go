package redrive

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/penstock/penstock/schema/task"
)

// JobState is where a redrive job stands.
type JobState string

// States of a job.
//
//	running ─▶ completed
//	   │ ▲
//	   ▼ │ resume
//	pausing ─▶ paused          running | paused ─▶ cancelling ─▶ cancelled
//
// Pausing and cancelling last while letters in flight are finished.
const (
	JobRunning    JobState = "running"
	JobPausing    JobState = "pausing"
	JobPaused     JobState = "paused"
	JobCancelling JobState = "cancelling"
	JobCancelled  JobState = "cancelled"
	JobCompleted  JobState = "completed"
)

func jobStates() []JobState {
	return []JobState{JobRunning, JobPausing, JobPaused, JobCancelling, JobCancelled, JobCompleted}
}

// ended reports whether nothing will happen to the job any more.
func (s JobState) ended() bool { return s == JobCancelled || s == JobCompleted }

// claimable reports whether a worker may own a job in this state.
func (s JobState) claimable() bool {
	return s == JobRunning || s == JobPausing || s == JobCancelling
}

// Spec is what the operator asked for.
type Spec struct {
	Filter *Filter `json:"filter,omitempty"` // nil: chosen by ids
	Rate   float64 `json:"rate"`             // letters a second
	Limit  int     `json:"limit,omitempty"`  // 0: none
	Note   string  `json:"note,omitempty"`   // for the audit
}

// Skip is one letter that was skipped, as an example for people.
type Skip struct {
	ID     Ref     `json:"id"`
	TaskID task.ID `json:"task_id,omitempty"`
	Reason Reason  `json:"reason"`
}

// maxExamples bounds Job.SkippedExamples.
const maxExamples = 20

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
	SkippedFor      map[Reason]int `json:"skipped_for"`
	SkippedExamples []Skip         `json:"skipped_examples"`
	CreatedAt       time.Time      `json:"created_at"`
	UpdatedAt       time.Time      `json:"updated_at"`
	EndedAt         time.Time      `json:"ended_at,omitzero"`
}

// job is a Job with what only its runner needs. It belongs to the ledger.
type job struct {
	Job
	epoch     int       // rises with each claim: the fence of its owner
	beat      time.Time // when the owner was last heard
	dirty     bool      // letters may be half done: it has an owner, or one that did not release it in good order
	inherited bool      // it was dirty when its present owner claimed it
	letters   []Ref     // in the order of work; nil once ended
	done      map[Ref]bool
}

// view returns a copy that shares nothing with the ledger.
func (j *job) view() Job {
	v := j.Job
	v.SkippedFor = maps.Clone(v.SkippedFor)
	v.SkippedExamples = slices.Clone(v.SkippedExamples)
	v.Remaining = v.Total - v.Redriven - v.Skipped
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

func (j *job) end(s JobState, at time.Time) {
	j.State, j.EndedAt, j.Owner = s, at, ""
	j.letters, j.done = nil, nil
}

// newJobID returns an id that sorts by time: "redrive_", 48 bits of
// milliseconds and 64 random bits.
func newJobID(now time.Time) string {
	raw := binary.BigEndian.AppendUint64(nil, uint64(now.UnixMilli()))[2:]
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails since Go 1.24: the runtime aborts instead
	raw = append(raw, random[:]...)
	return "redrive_" + strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(raw))
}
