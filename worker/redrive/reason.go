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
	ReasonNone            Reason = ""
	ReasonUndecodable     Reason = "undecodable"      // the bytes are not a task
	ReasonAlreadyRedriven Reason = "already_redriven" // another job, or an earlier one, was first
	ReasonNotDead         Reason = "not_dead"         // the task ended otherwise, or its result is past its time to live
	ReasonGenerationLimit Reason = "generation_limit" // generation 255 is the last
	ReasonNoPool          Reason = "no_pool"          // nobody serves its model any more
	ReasonGone            Reason = "gone"             // past the retention of the topic
)

// reasons returns every reason, so that metrics start at zero.
func reasons() []Reason {
	return []Reason{
		ReasonUndecodable, ReasonAlreadyRedriven, ReasonNotDead, ReasonGenerationLimit,
		ReasonNoPool, ReasonGone,
	}
}
