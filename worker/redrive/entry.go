package redrive

import (
	"fmt"
	"time"

	"github.com/penstock/penstock/internal/joblog"
	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/task"
)

// entryVersion is the version of the entries this package writes and reads.
const entryVersion = 1

// entryType says what an entry reports or asks for.
type entryType string

// Types of entries. The topic is shared: other types are other people's.
const (
	entryPrefix = "redrive."

	entrySelected  entryType = "redrive.selected"  // some letters of a job that is about to be created
	entryCreated   entryType = "redrive.created"   // the job; it exists from here on
	entryClaimed   entryType = "redrive.claimed"   // a worker wants to run it
	entryBeat      entryType = "redrive.beat"      // its owner is alive
	entryStep      entryType = "redrive.step"      // one letter has an outcome
	entryJudged    entryType = "redrive.judged"    // its canary passed
	entryReleased  entryType = "redrive.released"  // its owner stopped, with nothing in flight
	entryPaused    entryType = "redrive.paused"    // an operator's wish
	entryResumed   entryType = "redrive.resumed"   // likewise
	entryCancelled entryType = "redrive.cancelled" // likewise
	entryDiscarded entryType = "redrive.discarded" // letters that are to be left; it is no job's
)

// entry is the value of a record on penstock.control, keyed by job id, or by
// the id of a discard. Only the fields of its type are set.
type entry struct {
	SchemaVersion int       `json:"schema_version"`
	Type          entryType `json:"type"`
	Job           string    `json:"job"`
	At            time.Time `json:"at"`
	Owner         string    `json:"owner,omitempty"`
	Epoch         int       `json:"epoch,omitempty"`
	Spec          *Spec     `json:"spec,omitempty"`    // created
	Total         int       `json:"total,omitempty"`   // created: letters that the selected entries hold
	Letters       []Ref     `json:"letters,omitempty"` // selected
	Step          *step     `json:"step,omitempty"`
	Reason        string    `json:"reason,omitempty"` // released: why the job cannot go on by itself; discarded: why

	By       string     `json:"by,omitempty"`       // created, paused, resumed, cancelled, discarded: who, as they say
	Aborted  bool       `json:"aborted,omitempty"`  // released: for good
	Outcomes *Outcomes  `json:"outcomes,omitempty"` // beat, judged, released: of the tasks watched
	Deaths   []identity `json:"deaths,omitempty"`   // discarded
}

// discard is what a discarded entry leaves at each of its letters.
func (e *entry) discard() *Discard { return &Discard{At: e.At, By: e.By, Reason: e.Reason} }

// step is the outcome of one letter in one job.
type step struct {
	Letter     Ref      `json:"letter"`
	Death      identity `json:"death"`
	TaskID     task.ID  `json:"task_id,omitempty"`
	Generation uint8    `json:"generation"` // that was opened
	Outcome    Outcome  `json:"outcome"`
	Reason     Reason   `json:"reason,omitempty"`

	Disposition deadletter.Disposition `json:"disposition,omitempty"` // of the letter
}

// selectedPerEntry bounds one selected entry to about 200 KiB.
const selectedPerEntry = 10_000

// Encode implements joblog.Entry.
func (e entry) Encode(at time.Time) (key string, value []byte, err error) {
	e.SchemaVersion, e.At = entryVersion, at
	value, err = joblog.Encode(e)
	return e.Job, value, err
}

// String implements joblog.Entry.
func (e entry) String() string { return fmt.Sprintf("%s of %s", e.Type, e.Job) }

// decodeEntry reads an entry. The second result is false for an entry of
// somebody else, which is no error.
func decodeEntry(value []byte) (entry, bool, error) {
	e, ours, err := joblog.Decode[entry](value, entryPrefix)
	if !ours || err != nil {
		return entry{}, false, err
	}
	if e.SchemaVersion != entryVersion || e.Job == "" || (e.Type == entryStep && e.Step == nil) || (e.Type == entryCreated && e.Spec == nil) {
		return entry{}, false, fmt.Errorf("%w: %s of version %d", joblog.ErrEntry, e.Type, e.SchemaVersion)
	}
	return e, true, nil
}
