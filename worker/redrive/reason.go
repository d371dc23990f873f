package redrive

// Outcome is what became of one letter in one job.
type Outcome string

// Outcomes. There is no "failed": what cannot be done now pauses the job.
const (
	Redriven Outcome = "redriven"
	Skipped  Outcome = "skipped"
)

// Reason says why a letter was skipped.
type Reason string

// Reasons.
const (
	ReasonNone             Reason = ""
	ReasonUndecodable      Reason = "undecodable"        // the bytes are not a task
	ReasonAlreadyRedriven  Reason = "already_redriven"   // another job, or an earlier one, was first
	ReasonNotDead          Reason = "not_dead"           // the task ended otherwise, or its result is past its time to live
	ReasonTooOld           Reason = "too_old"            // its result would be past its time to live before anybody read it
	ReasonRedrivenTooOften Reason = "redriven_too_often" // it came back each time; force goes on up to a limit
	ReasonGenerationLimit  Reason = "generation_limit"   // the generations that one task has are nearly used up
	ReasonNoPool           Reason = "no_pool"            // nobody serves its model any more
	ReasonGone             Reason = "gone"               // past the retention of the topic
	ReasonPayloadLost      Reason = "payload_lost"       // the blob store no longer has its payload as it was put
)

// reasons returns every reason, so that metrics start at zero.
func reasons() []Reason {
	return []Reason{
		ReasonUndecodable, ReasonAlreadyRedriven, ReasonNotDead, ReasonTooOld, ReasonRedrivenTooOften,
		ReasonGenerationLimit, ReasonNoPool, ReasonGone, ReasonPayloadLost,
	}
}
