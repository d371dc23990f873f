package bulk

import (
	"fmt"
	"time"

	"github.com/penstock/penstock/internal/joblog"
	"github.com/penstock/penstock/schema/task"
)

// entryVersion is the version of the entries this package writes and reads.
const entryVersion = 1

// entryType says what an entry reports or asks for.
type entryType string

// Types of entries. The topic is shared: other types are other people's. Those
// marked * are an owner's and count only under its epoch.
const (
	entryPrefix = "bulk."

	entryFile       entryType = "bulk.file"       // a client's file is stored
	entryDeleted    entryType = "bulk.deleted"    // a file is no more
	entryCreated    entryType = "bulk.created"    // a batch; it exists from here on
	entryCancelled  entryType = "bulk.cancelled"  // its client's wish
	entryClaimed    entryType = "bulk.claimed"    // a process wants to run it
	entryBeat       entryType = "bulk.beat"       // * it is alive
	entryValidated  entryType = "bulk.validated"  // * every line is in order
	entryFailed     entryType = "bulk.failed"     // * some are not
	entrySegment    entryType = "bulk.segment"    // * some lines have an outcome, which is stored
	entryFinalizing entryType = "bulk.finalizing" // * all have
	entryEnded      entryType = "bulk.ended"      // * and the files are there
	entryTold       entryType = "bulk.told"       // * its end lies on penstock.webhooks
	entryReleased   entryType = "bulk.released"   // * it stopped; anybody may go on
)

// entry is the value of a record on penstock.control, keyed by file or batch.
// Only the fields of its type are set.
type entry struct {
	SchemaVersion int       `json:"schema_version"`
	Type          entryType `json:"type"`
	ID            string    `json:"id"` // of the batch or the file
	At            time.Time `json:"at"`
	Owner         string    `json:"owner,omitempty"`
	Epoch         int       `json:"epoch,omitempty"`
	File          *File     `json:"file,omitempty"`    // file
	Spec          *Spec     `json:"spec,omitempty"`    // created
	Total         int       `json:"total,omitempty"`   // validated
	Faults        []Fault   `json:"faults,omitempty"`  // failed
	Segment       *segment  `json:"segment,omitempty"` // segment
	Status        Status    `json:"status,omitempty"`  // ended
	Output        *File     `json:"output,omitempty"`  // ended
	Errors        *File     `json:"errors,omitempty"`  // ended
}

// segment is a piece of a batch's output that is stored. Both contents may be
// missing, not both at once.
type segment struct {
	N      int       `json:"n"` // from 0, without gaps: a repeat does not count again
	Output *task.Ref `json:"output,omitempty"`
	Errors *task.Ref `json:"errors,omitempty"`
	Lines  []span    `json:"lines"`
	Counts Counts    `json:"counts"`
}

// Encode implements joblog.Entry.
func (e entry) Encode(at time.Time) (key string, value []byte, err error) {
	e.SchemaVersion, e.At = entryVersion, at
	value, err = joblog.Encode(e)
	return e.ID, value, err
}

// String implements joblog.Entry.
func (e entry) String() string { return fmt.Sprintf("%s of %s", e.Type, e.ID) }

// decodeEntry reads an entry. The second result is false for an entry of
// somebody else, which is no error.
func decodeEntry(value []byte) (entry, bool, error) {
	e, ours, err := joblog.Decode[entry](value, entryPrefix)
	if !ours || err != nil {
		return entry{}, false, err
	}
	if e.SchemaVersion != entryVersion || e.ID == "" || !e.complete() {
		return entry{}, false, fmt.Errorf("%w: %s of version %d", joblog.ErrEntry, e.Type, e.SchemaVersion)
	}
	return e, true, nil
}

// complete reports whether an entry has what its type needs.
func (e *entry) complete() bool {
	switch e.Type {
	case entryFile:
		return e.File != nil
	case entryCreated:
		return e.Spec != nil
	case entrySegment:
		return e.Segment != nil
	case entryEnded:
		return e.Status.Ended()
	}
	return true
}
