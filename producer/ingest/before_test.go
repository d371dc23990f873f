package ingest_test

import (
	"context"
	"errors"
	"testing"

	"github.com/penstock/penstock/producer/ingest"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
)

func TestWhatComesBeforeATaskIsDoneOnceItIsInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var asked []task.ID
	outcome := errors.New("not now")
	accept := func(s ingest.Submission) (ingest.Receipt, error) {
		s.Before = func(_ context.Context, t *task.Task) error {
			asked = append(asked, t.ID)
			return outcome
		}
		return b.intake.Accept(t.Context(), s)
	}
	if _, err := accept(submission(text("nobody", "x"), "")); fault.CodeOf(err) == "" || len(asked) != 0 {
		t.Errorf("a task that is refused: %v, asked %v", err, asked)
	}
	if _, err := accept(submission(text("chat", "x"), "")); !errors.Is(err, outcome) || len(asked) != 1 || len(b.topics.tasks) != 0 {
		t.Errorf("%v, asked %v, %d tasks", err, asked, len(b.topics.tasks))
	}
	outcome = nil
	for range 2 { // the second is durable already
		if r, err := accept(submission(text("chat", "x"), "k")); err != nil || len(asked) != 2 || asked[1] != r.ID || len(b.topics.tasks) != 1 {
			t.Errorf("%+v, %v, asked %v, %d tasks", r, err, asked, len(b.topics.tasks))
		}
	}
	outcome = errors.New("not now")
	results := b.intake.AcceptAll(t.Context(), 1, func(int) (ingest.Submission, error) {
		s := submission(text("chat", "y"), "")
		s.Before = func(context.Context, *task.Task) error { return outcome }
		return s, nil
	})
	if !errors.Is(results[0].Err, outcome) || len(b.topics.tasks) != 1 {
		t.Errorf("%v, %d tasks", results[0].Err, len(b.topics.tasks))
	}
}
