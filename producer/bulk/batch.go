package bulk

import (
	"maps"
	"slices"
	"time"

	"github.com/penstock/penstock/internal/joblog"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/webhook"
)

// Status is where a batch stands.
type Status string

// Statuses of a batch.
//
//	validating ─▶ in_progress ─▶ finalizing ─▶ completed
//	    │  │          │  │           └───────▶ expired   (some lines ran out of time)
//	    │  │          │  └▶ cancelling ─▶ cancelled
//	    │  └──────────────────▲
//	    └▶ failed  (the file is at fault, and no line was run)
//
// Nothing follows an end, but that whoever asked for it is told.
const (
	Validating Status = "validating"
	InProgress Status = "in_progress"
	Finalizing Status = "finalizing"
	Completed  Status = "completed"
	Failed     Status = "failed"
	Expired    Status = "expired"
	Cancelling Status = "cancelling"
	Cancelled  Status = "cancelled"
)

// Statuses returns every status, so that metrics start at zero.
func Statuses() []Status {
	return []Status{Validating, InProgress, Finalizing, Completed, Failed, Expired, Cancelling, Cancelled}
}

// Ended reports whether nothing will happen to the batch any more.
func (s Status) Ended() bool {
	return s == Completed || s == Failed || s == Expired || s == Cancelled
}

// Spec is what the client asked for, with what followed from it at the door.
type Spec struct {
	Tenant     string            `json:"tenant"`
	Endpoint   string            `json:"endpoint"`
	Input      string            `json:"input"` // id of the file
	Content    task.Ref          `json:"content"`
	Window     string            `json:"window"` // as the client wrote it
	ExpiresAt  time.Time         `json:"expires_at"`
	Metadata   map[string]string `json:"metadata,omitempty"`
	OutputLife time.Duration     `json:"output_life"`   // of the files it makes
	Key        string            `json:"key,omitempty"` // the client's idempotency key
	Webhook    *task.Webhook     `json:"webhook,omitempty"`
}

// Fault is what is wrong with a file, or with one line of it.
type Fault struct {
	Line    int    `json:"line,omitempty"` // from 1; 0: the whole file
	Code    string `json:"code"`
	Message string `json:"message"`
	Param   string `json:"param,omitempty"`
}

// Counts are the lines of a batch by what became of them.
type Counts struct {
	Completed int `json:"completed"`
	Failed    int `json:"failed"`
	Expired   int `json:"expired"`   // not ended when the window was over
	Cancelled int `json:"cancelled"` // not ended when the client stopped the batch
}

func (c Counts) plus(d Counts) Counts {
	return Counts{c.Completed + d.Completed, c.Failed + d.Failed, c.Expired + d.Expired, c.Cancelled + d.Cancelled}
}

// Ended is how many lines have an outcome.
func (c Counts) Ended() int { return c.Completed + c.Failed + c.Expired + c.Cancelled }

// Batch is one batch as its owner sees it. Times are zero until they come.
type Batch struct {
	ID     string
	Status Status
	Spec   Spec
	Total  int // lines; 0 until the file is validated
	Counts Counts
	Faults []Fault // why it failed
	Output string  // id of the file of successes, once it ended; empty: there are none
	Errors string  // id of the file of everything else

	CreatedAt, InProgressAt, FinalizingAt, CancellingAt, EndedAt time.Time
}

// batch is a Batch with what only its runner needs. It belongs to the ledger.
type batch struct {
	Batch
	seat     joblog.Seat
	told     bool // its end lies on penstock.webhooks
	done     lineSet
	segments int // that count
	outputs  []task.Ref
	errors   []task.Ref
}

// view returns a copy that shares nothing with the ledger.
func (b *batch) view() Batch {
	v := b.Batch
	v.Spec.Metadata = maps.Clone(v.Spec.Metadata)
	v.Faults = slices.Clone(v.Faults)
	if w := v.Spec.Webhook; w != nil {
		v.Spec.Webhook = &task.Webhook{URL: w.URL, Events: slices.Clone(w.Events)}
	}
	return v
}

// end ends the batch. Its owner stays where somebody must be told of it.
func (b *batch) end(s Status, at time.Time) {
	b.Status, b.EndedAt = s, at
	b.done, b.outputs, b.errors = nil, nil, nil
	if b.over() {
		b.seat.Leave()
	}
}

// over reports whether nothing is left to do for the batch.
func (b *batch) over() bool { return b.Status.Ended() && (b.told || !b.wanted()) }

// wanted reports whether somebody wants to hear that the batch ended as it did.
func (b *Batch) wanted() bool {
	return b.Spec.Webhook != nil && webhook.Wants(b.Spec.Webhook, b.event())
}

// event is the type of the event that tells of the batch's end.
func (b *Batch) event() string { return webhook.BatchType(string(b.Status)) }
