package claimcheck

import (
	"context"
	"fmt"

	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// Task returns what a caller sees of a task with the output in it, wherever that
// lies. Status and everything else stay as the log has them: where the output is
// lost, the error says so beside a status that is still true. An error is
// returned only for trouble that may pass. The caller releases the task when it
// is no longer used.
func (d *Desk) Task(ctx context.Context, view api.Task) (_ api.Task, release func(), err error) {
	output, lost, release, err := d.output(ctx, view.OutputRef)
	switch {
	case err != nil:
		return api.Task{}, nil, fmt.Errorf("read result of task %s: %w", view.TaskID, err)
	case lost != nil:
		view.Error = lost
	case output != nil:
		view.Output, view.OutputRef = output, nil
	}
	return view, release, nil
}

// Terminal is Task for a terminal, which is not changed itself.
func (d *Desk) Terminal(ctx context.Context, t *terminal.Terminal) (_ *terminal.Terminal, release func(), err error) {
	output, lost, release, err := d.output(ctx, t.OutputRef)
	if err != nil {
		return nil, nil, fmt.Errorf("read result of task %s: %w", t.TaskID, err)
	}
	whole := *t
	switch {
	case lost != nil:
		whole.Error = lost
	case output != nil:
		whole.Output, whole.OutputRef, whole.FinishReason = output, nil, ""
	}
	return &whole, release, nil
}

// output fetches an output, or says that it is lost. Without a reference there
// is neither.
func (d *Desk) output(ctx context.Context, ref *task.Ref) (_ *task.Output, lost *terminal.Error, release func(), err error) {
	if ref == nil {
		return nil, nil, func() {}, nil
	}
	var output task.Output
	release, err = d.fetch(ctx, *ref, &output)
	switch {
	case err == nil:
		return &output, nil, release, nil
	case Fault(err).Code == fault.BlobLost:
		return nil, &terminal.Error{
			Code: fault.BlobLost, Message: "the result was made, and is no longer in the blob store as it was put",
		}, func() {}, nil
	}
	return nil, nil, nil, err
}
