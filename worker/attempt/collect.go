package attempt

import (
	"context"
	"encoding/json"
	"time"

	"github.com/penstock/penstock/internal/claimcheck"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

// Claims brings back payloads that do not lie in their records:
// *claimcheck.Desk.
type Claims interface {
	Collect(ctx context.Context, p task.Payload) (_ task.Payload, release func(), err error)
}

// Memory gives a task what was said before it in its session:
// *recall.Recaller.
type Memory interface {
	// Recall returns the messages that a task is run with, given its own. Lane is
	// the topic of its record. Errors are *fault.Error.
	Recall(ctx context.Context, t *task.Task, own json.RawMessage, lane string) (json.RawMessage, error)
}

// noMemory is where a worker has none: such tasks wait for one that has.
type noMemory struct{}

func (noMemory) Recall(context.Context, *task.Task, json.RawMessage, string) (json.RawMessage, error) {
	return nil, &fault.Error{Code: fault.Unavailable, Class: fault.ClassSystem, Message: "this worker reads no memory of sessions"}
}

// collect fetches the payloads of the tries that left theirs in the blob store,
// and what others remember of their session, and returns those that can run. The
// others have a result: a store that does not answer costs no attempt, a payload
// that is lost ends the task.
func (r *Runner) collect(ctx context.Context, tries []*Try, live []int, results []Result) (have []int, release func()) {
	var releases []func()
	for _, i := range live {
		t := tries[i]
		if t.Task.Payload.Ref == nil && !t.Task.Memory {
			have = append(have, i)
			continue
		}
		began := time.Now()
		done, err := r.collectOne(ctx, t)
		if err != nil {
			results[i] = Result{Err: err, Uncollected: true, Started: began, Ended: time.Now()}
			continue
		}
		releases = append(releases, done)
		have = append(have, i)
	}
	return have, func() {
		for _, done := range releases {
			done()
		}
	}
}

func (r *Runner) collectOne(ctx context.Context, t *Try) (release func(), err error) {
	ctx, stop := t.start(ctx, r.p.Timeout, r.p.NowFunc())
	defer stop()
	payload, release, err := r.p.Claims.Collect(ctx, t.Task.Payload)
	if err != nil {
		return nil, uncollected(ctx, claimcheck.Fault(err))
	}
	if t.Task.Memory {
		if payload.Messages, err = r.p.Memory.Recall(ctx, t.Task, payload.Messages, t.Lane); err != nil {
			release()
			return nil, uncollected(ctx, err)
		}
	}
	whole := *t.Task
	whole.Payload = payload
	t.whole = &whole
	return release, nil
}

// uncollected says why a payload could not be had: what ended the try, if
// anything did, but for a timeout, which is not the task's fault here.
func uncollected(ctx context.Context, err error) error {
	if cause := settleErr(ctx, err); ctx.Err() != nil && fault.CodeOf(cause) != fault.Timeout {
		return cause
	}
	return err
}
