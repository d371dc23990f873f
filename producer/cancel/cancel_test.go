package cancel_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/producer/cancel"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world stands for Kafka, Redis and the results tail at once.
type world struct {
	view     api.Task
	known    bool
	storeErr error
	pubErr   error
	written  []*terminal.Terminal
	signals  int
	winner   *terminal.Terminal
	wins     time.Duration // after the wait began; 0 with a winner: at once
}

func (w *world) Task(context.Context, task.ID) (api.Task, bool, error) {
	return w.view, w.known, w.storeErr
}

func (w *world) SignalCancel(context.Context, task.ID) error { w.signals++; return w.storeErr }

func (w *world) BrokerNow() time.Time { return time.Now() }

func (w *world) Terminal(_ context.Context, t *terminal.Terminal) (tasktopic.Ack, error) {
	w.written = append(w.written, t)
	return tasktopic.Ack{}, w.pubErr
}

func (w *world) Wait(ctx context.Context, _ task.ID) (*terminal.Terminal, uint8, error) {
	if w.winner != nil {
		select {
		case <-time.After(w.wins):
			return w.winner, 0, nil
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
	<-ctx.Done()
	return nil, 0, ctx.Err()
}

func setup(t *testing.T, w *world) (*cancel.Desk, task.ID, *task.Minter) {
	t.Helper()
	minter, err := task.NewMinter(task.Secret{Number: 1, Key: []byte("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	gone := func(id task.ID, now time.Time) bool { return now.Sub(id.Time()) > 60*time.Hour }
	desk := cancel.New(minter, w, w, w, cancel.Params{Gone: gone}, slog.New(slog.DiscardHandler))
	return desk, minter.New("acme", time.Now()), minter
}

func TestTheTerminalThatWonIsTheAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		created := time.Now().Add(-time.Minute).UTC()
		w := &world{
			known: true, view: api.Task{Status: task.Running, Model: "m", Class: task.Bulk, Labels: map[string]string{"a": "b"}, CreatedAt: &created},
			wins: time.Second,
		}
		desk, id, _ := setup(t, w)
		w.winner = &terminal.Terminal{TaskID: id, Status: task.Succeeded, EndedAt: time.Now()}
		out, err := desk.Cancel(t.Context(), "acme", id)
		if err != nil || !out.Ended || out.Task.Status != task.Succeeded {
			t.Fatalf("got %+v, %v", out, err)
		}
		want := &terminal.Terminal{
			SchemaVersion: 1, TaskID: id, Status: task.Cancelled, Tenant: "acme", Model: "m", Class: task.Bulk, Labels: map[string]string{"a": "b"},
			Error: &terminal.Error{Code: fault.Cancelled, Message: "stopped by the caller"}, CreatedAt: created, EndedAt: w.written[0].EndedAt,
		}
		if diff := cmp.Diff([]*terminal.Terminal{want}, w.written); diff != "" || w.signals != 1 {
			t.Error(diff, w.signals)
		}
		if w.written[0].Generation != nil {
			t.Error("a cancel names a generation")
		}
	})
}

func TestATaskThatEndedIsAnsweredWithoutARecord(t *testing.T) {
	t.Parallel()
	w := &world{known: true, view: api.Task{Status: task.Dead, Generation: 2}}
	desk, id, _ := setup(t, w)
	for range 2 {
		out, err := desk.Cancel(t.Context(), "acme", id)
		if err != nil || !out.Ended || out.Task.Status != task.Dead || len(w.written) != 0 {
			t.Errorf("got %+v, %v, %d records", out, err, len(w.written))
		}
	}
}

func TestWithoutAWinnerTheCancelIsDurableAndOpen(t *testing.T) {
	t.Parallel()
	for name, w := range map[string]*world{
		"nobody wins in time": {},
		"the winner is late":  {winner: &terminal.Terminal{}, wins: 3 * time.Second},
		"redis is down":       {storeErr: errors.New("refused")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				desk, id, _ := setup(t, w)
				began := time.Now()
				out, err := desk.Cancel(t.Context(), "acme", id)
				if err != nil || out.Ended || out.Task.Status != task.Pending || out.Task.TaskID != id {
					t.Errorf("got %+v, %v", out, err)
				}
				if took := time.Since(began); took != 2*time.Second || len(w.written) != 1 {
					t.Errorf("took %s, wrote %d", took, len(w.written))
				}
			})
		})
	}
}

func TestForeignAndOldIDsAreRefused(t *testing.T) {
	t.Parallel()
	w := &world{}
	desk, id, minter := setup(t, w)
	for _, tc := range []struct {
		name, tenant string
		id           task.ID
		want         fault.Code
	}{
		{"another tenant's task", "other", id, fault.NotFound},
		{"an invented id", "acme", invented(id), fault.NotFound},
		{"no id at all", "acme", "x", fault.NotFound},
		{"a task of another age", "acme", minter.New("acme", time.Now().Add(-61*time.Hour)), fault.Gone},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if _, err := desk.Cancel(t.Context(), tc.tenant, tc.id); fault.CodeOf(err) != tc.want {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("and nothing was written", func(t *testing.T) {
		if len(w.written) != 0 {
			t.Error(w.written)
		}
	})
}

// invented changes the last character of an id, which is part of its MAC.
func invented(id task.ID) task.ID {
	last := byte('0')
	if id[len(id)-1] == last {
		last = '1'
	}
	return id[:len(id)-1] + task.ID(last)
}

func TestKafkaSaysNo(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{tasktopic.ErrFull, tasktopic.ErrUnknown} {
		t.Run(cause.Error(), func(t *testing.T) {
			t.Parallel()
			w := &world{pubErr: fmt.Errorf("produce: %w", cause)}
			desk, id, _ := setup(t, w)
			_, err := desk.Cancel(t.Context(), "acme", id)
			if fault.CodeOf(err) != fault.Unavailable || fault.RetryAfterOf(err) == 0 || w.signals != 0 {
				t.Errorf("got %v, %d signals", err, w.signals)
			}
		})
	}
}
