package redrive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
)

// verdict is what the results say about a letter's task, seen from one job.
type verdict int

const (
	verdictUnknown verdict = iota // open or unknown: only the log can tell
	verdictDead                   // dead in the letter's generation: may be reopened
	verdictOurs                   // reopened by this job, and still open
	verdictOver                   // reopened by this job, and ended again
	verdictLost                   // another redrive was first
	verdictNever                  // the generation ended otherwise, for good
)

func judge(s terminal.State, generation uint8, job string) verdict {
	switch {
	case s.Generation > generation && s.Generation == generation+1 && s.RedriveJob == job:
		if s.Open() {
			return verdictOurs
		}
		return verdictOver
	case s.Generation > generation:
		return verdictLost
	case s.Generation == generation && s.Status == task.Dead:
		return verdictDead
	case s.Generation == generation && s.Status.Terminal():
		return verdictNever
	}
	return verdictUnknown
}

// putBack takes one letter through steps 1 to 3 and says what became of it.
// An error means that Kafka, Redis or the projection did not do its part, and
// that the letter may be half done: putBack must be called again.
func (r *Redriver) putBack(ctx context.Context, t *tenure, at Ref) (step, error) {
	job := t.job
	rec, err := r.source.Fetch(ctx, at)
	if errors.Is(err, ErrGone) {
		return r.skipIndexed(at, ReasonGone), nil
	}
	if err != nil {
		return step{}, err
	}
	c, err := r.readCandidate(rec)
	if err != nil || c.task == nil {
		return r.skipIndexed(at, ReasonUndecodable), nil
	}
	v, err := r.verdict(ctx, &c, job)
	if err != nil {
		return step{}, err
	}
	if v == verdictDead || v == verdictUnknown {
		if reason := r.refusal(&c, t.spec.Force); reason != ReasonNone {
			return c.outcome(at, reason), nil
		}
		if reason, err := r.renew(ctx, &c); err != nil || reason != ReasonNone {
			return c.outcome(at, reason), err
		}
		if v, err = r.reopen(ctx, &c, job); err != nil {
			return step{}, err
		}
	}
	return r.conclude(ctx, &c, job, at, v)
}

// conclude acts on the final verdict.
func (r *Redriver) conclude(ctx context.Context, c *candidate, job string, at Ref, v verdict) (step, error) {
	switch v {
	case verdictOurs:
		return c.outcome(at, ReasonNone), r.publish(ctx, c, job)
	case verdictOver:
		return c.outcome(at, ReasonNone), nil
	case verdictLost:
		return c.outcome(at, ReasonAlreadyRedriven), nil
	default:
		return c.outcome(at, ReasonNotDead), nil
	}
}

// finishBegun completes a letter that an earlier owner of the job may have
// left between steps. The result is false if it had not reopened the task.
func (r *Redriver) finishBegun(ctx context.Context, job string, at Ref) (step, bool, error) {
	rec, err := r.source.Fetch(ctx, at)
	if errors.Is(err, ErrGone) {
		return step{}, false, nil
	}
	if err != nil {
		return step{}, false, err
	}
	c, err := r.readCandidate(rec)
	if err != nil || c.task == nil {
		return step{}, false, nil
	}
	partition := topic.ResultsPartition(c.task.ID, r.p.ResultsPartitions)
	end, err := r.source.ResultsEnd(ctx, partition)
	if err != nil {
		return step{}, false, err
	}
	v, err := r.settledVerdict(ctx, &c, job, end)
	if err != nil || (v != verdictOurs && v != verdictOver) {
		return step{}, false, err
	}
	s, err := r.conclude(ctx, &c, job, at, v)
	return s, true, err
}

func (r *Redriver) verdict(ctx context.Context, c *candidate, job string) (verdict, error) {
	states, err := r.store.States(ctx, []task.ID{c.task.ID})
	if err != nil {
		return 0, fmt.Errorf("read state of task %s: %w", c.task.ID, err)
	}
	return judge(states[0], c.letter.Generation, job), nil
}

// reopen does steps 1 and 2: it publishes `reopened` and reads the state back
// once the projection has passed it.
func (r *Redriver) reopen(ctx context.Context, c *candidate, job string) (verdict, error) {
	ack, err := r.pub.Terminal(ctx, c.reopened(job, r.pub.BrokerNow()))
	if err != nil {
		return 0, fmt.Errorf("reopen task %s: %w", c.task.ID, err)
	}
	return r.settledVerdict(ctx, c, job, ack.Offset+1)
}

// settledVerdict is the verdict once every result below next is projected. It
// is asked for twice if the answer is "unknown": a store that lost its data
// between the two reads would otherwise make a reopened task look never dead.
func (r *Redriver) settledVerdict(ctx context.Context, c *candidate, job string, next int64) (v verdict, err error) {
	partition := topic.ResultsPartition(c.task.ID, r.p.ResultsPartitions)
	for range 2 {
		if err := r.projected(ctx, partition, next); err != nil {
			return 0, err
		}
		if v, err = r.verdict(ctx, c, job); err != nil || v != verdictUnknown {
			return v, err
		}
	}
	return v, nil
}

func (c *candidate) reopened(job string, now time.Time) *terminal.Terminal {
	next := c.letter.Generation + 1
	return &terminal.Terminal{
		SchemaVersion: task.SchemaVersion, TaskID: c.task.ID, Status: terminal.Reopened, Generation: &next,
		Tenant: c.task.Tenant, Kind: c.task.Kind, Model: c.task.Model, Class: c.task.Class,
		Source: c.task.Source, Labels: c.task.Labels, RedriveJob: job,
		CreatedAt: c.task.Timestamp, EndedAt: now.UTC(),
	}
}

// ErrProjection is returned when the results projection does not advance.
var ErrProjection = errors.New("the results projection does not advance")

// projected waits until the projection of a results partition has applied
// every record below next.
func (r *Redriver) projected(ctx context.Context, partition int32, next int64) error {
	deadline := time.NewTimer(r.p.ProjectionWait)
	defer deadline.Stop()
	for wait := 2 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		p, err := r.store.Projection(ctx, partition)
		if err != nil {
			return fmt.Errorf("read projection of %s/%d: %w", topic.Results, partition, err)
		}
		if p.Known && p.Next >= next {
			return nil
		}
		pause := time.NewTimer(wait)
		select {
		case <-pause.C:
		case <-deadline.C:
			pause.Stop()
			return fmt.Errorf("%w: %s/%d stands at %d and is needed up to %d after %s; check that the results service runs and reaches Redis",
				ErrProjection, topic.Results, partition, p.Next, next, r.p.ProjectionWait)
		case <-ctx.Done():
			pause.Stop()
			return context.Cause(ctx)
		}
	}
}

// publish does step 3: the same bytes, in the next generation, with a fresh
// count of attempts and the old history.
func (r *Redriver) publish(ctx context.Context, c *candidate, job string) error {
	if c.pool == "" {
		return fmt.Errorf("task %s was reopened, but no pool serves model %q any more; add it to the catalog and resume", c.task.ID, c.task.Model)
	}
	// Again, since an earlier owner of the job may have done the steps before. A
	// payload that was lost meanwhile ends the task once more.
	if _, err := r.renew(ctx, c); err != nil {
		return err
	}
	pr := task.Progress{Generation: c.letter.Generation + 1, History: c.history(), FirstFailure: c.letter.FirstFailure, RedriveJob: job, Deadline: c.deadline(r.pub.BrokerNow(), r.until(c.task.ID))}
	if _, err := r.pub.Republish(ctx, c.original, c.task, topic.Tasks(c.pool, c.task.Class), pr); err != nil {
		return fmt.Errorf("publish task %s: %w", c.task.ID, err)
	}
	return nil
}

// history is the letter's, which holds the last attempt too; one written by a
// stranger may have only the record's own.
func (c *candidate) history() []task.Attempt {
	if len(c.letter.History) > 0 {
		return c.letter.History
	}
	return c.progress.History
}

func (c *candidate) outcome(at Ref, reason Reason) step {
	s := step{
		Letter: at, Death: identityOf(&c.letter), TaskID: c.task.ID, Outcome: Redriven,
		Generation: c.letter.Generation + 1, Disposition: c.letter.Disposition,
	}
	if reason != ReasonNone {
		s.Outcome, s.Reason, s.Generation = Skipped, reason, c.letter.Generation
	}
	return s
}

// skipIndexed is the outcome of a letter that cannot be read: what is known of
// it comes from the index.
func (r *Redriver) skipIndexed(at Ref, reason Reason) step {
	s := step{Letter: at, Outcome: Skipped, Reason: reason}
	if l, ok := r.index.letter(at); ok {
		s.Death, s.TaskID, s.Generation, s.Disposition = l.identity(), l.TaskID, l.Generation, l.Disposition
	}
	return s
}
