package attempt

import (
	"context"
	"errors"

	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

// Errors of a Log.
var (
	// ErrFenced: the log holds an id that is newer than the write's.
	ErrFenced = errors.New("a newer fence owns the stream")
	// ErrVanished: the task's stream is gone, so the store lost its data.
	ErrVanished = errors.New("the stream is gone")
)

// Claim is the note that a worker starts a try; it opens the token stream.
type Claim struct {
	Task    task.ID
	Fence   event.Fence
	Attempt int
	Worker  string
	Event   event.Event // started or restart, with the id <fence>-0
}

// Append is some events for one task's stream, in order.
type Append struct {
	Task   task.ID
	Events []event.Event
}

// Log is the tasks' token streams. Each method is one round trip for all that
// it is given and returns one error per item, in order.
type Log interface {
	Claim(ctx context.Context, claims []Claim) []error
	Append(ctx context.Context, batch []Append) []error
}

// Store is what the projection knows of tasks.
type Store interface {
	// States returns what each task's terminals say so far.
	States(ctx context.Context, ids []task.ID) ([]terminal.State, error)
	// Running hints that tries of tasks have begun. It may be lost.
	Running(ctx context.Context, tries []*Try) error
}
