package grpcapi

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/penstock/penstock/internal/rpc"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

func taskOf(t api.Task) *rpc.Task {
	out := &rpc.Task{
		TaskId: string(t.TaskID), Status: string(t.Status), Generation: uint32(t.Generation), Model: t.Model, Class: string(t.Class),
		Output: outputOf(t.Output), Usage: usageOf(t.Usage), Error: errorOf(t.Error), Labels: t.Labels,
		CreatedAt: timeOf(t.CreatedAt), EndedAt: timeOf(t.EndedAt),
	}
	for _, a := range t.Attempts {
		out.Attempts = append(out.Attempts, attemptOf(a))
	}
	return out
}

func attemptOf(a task.Attempt) *rpc.Attempt {
	return &rpc.Attempt{
		N: int32(a.N), Fence: a.Fence, Worker: a.Worker, Backend: a.Backend, StartedAt: timeOf(&a.StartedAt), EndedAt: timeOf(&a.EndedAt),
		Code: a.Code, Class: a.Class, Status: int32(a.Status), Message: a.Message,
	}
}

func outputOf(o *task.Output) *rpc.Output {
	if o == nil {
		return nil
	}
	return &rpc.Output{
		Text: o.Text, FinishReason: o.FinishReason,
		ChoicesJson: string(o.Choices), EmbeddingsJson: string(o.Embeddings), ValueJson: string(o.Value),
	}
}

func usageOf(u *task.Usage) *rpc.Usage {
	if u == nil {
		return nil
	}
	return &rpc.Usage{
		PromptTokens: int64(u.PromptTokens), CompletionTokens: int64(u.CompletionTokens), TotalTokens: int64(u.TotalTokens),
	}
}

func errorOf(e *terminal.Error) *rpc.Error {
	if e == nil {
		return nil
	}
	return &rpc.Error{Code: string(e.Code), Message: e.Message, Status: int32(e.Status)}
}

// timeOf leaves out what is not known.
func timeOf(t *time.Time) *timestamppb.Timestamp {
	if t == nil || t.IsZero() {
		return nil
	}
	return timestamppb.New(*t)
}

func eventOf(e event.Event) *rpc.Event {
	out := &rpc.Event{
		Id: e.ID.String(), Type: string(e.Type), TaskId: string(e.TaskID), At: timeOf(&e.At), Attempt: int32(e.Attempt),
		Text: e.Text, Index: int32(e.Index), ChoiceJson: string(e.Choice), Usage: usageOf(e.Usage), Reason: e.Reason,
		ProgressJson: string(e.Progress),
	}
	if e.Result != nil {
		out.Result = taskOf(api.OfTerminal(e.Result, e.ID.Fence.Generation()))
	}
	return out
}
