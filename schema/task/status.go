package task

// Status is a state of a task's life:
//
//	pending ─▶ queued ─▶ running ─▶ succeeded | failed | cancelled | expired | dead
//	              ▲         │                                                  │
//	              └─ retry ─┘                  redrive (generation+1) ◀────────┘
//
// Terminal states are facts and never change within a generation. The others
// are hints for people and may be lost.
type Status string

// Statuses. Pending means: accepted by us, and nothing more is known just now.
const (
	Pending   Status = "pending"
	Queued    Status = "queued"
	Running   Status = "running"
	Succeeded Status = "succeeded"
	Failed    Status = "failed"    // for good: the input was refused; no dead letter
	Cancelled Status = "cancelled" // the caller stopped it
	Expired   Status = "expired"   // its deadline passed
	Dead      Status = "dead"      // tries exhausted, undecodable, or a suspected killer; has a dead letter
)

// Statuses returns every status, in the order of a task's life.
func Statuses() []Status {
	return []Status{Pending, Queued, Running, Succeeded, Failed, Cancelled, Expired, Dead}
}

// Terminal reports whether s ends a generation.
func (s Status) Terminal() bool {
	switch s {
	case Succeeded, Failed, Cancelled, Expired, Dead:
		return true
	}
	return false
}
