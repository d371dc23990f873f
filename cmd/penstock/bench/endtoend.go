package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// EndToEnd measures the whole way on a backend that costs nothing: each client
// submits its tasks, follows them all over one SSE connection, and begins
// again when every one has ended.
type EndToEnd struct {
	Client *client.Client
	Load   Load   // closed: Clients and Length
	Tasks  int    // of a client at once
	Parts  []Part // whose processor time is told apart
}

// EndToEndReport is what came out.
type EndToEndReport struct {
	Delivered int64
	Elapsed   time.Duration
	Rounds    Result          // of submit-and-follow rounds
	CPU       []time.Duration // of each part, in the order of Parts
}

// PerSecond is the rate of tasks whose end was delivered.
func (r EndToEndReport) PerSecond() float64 { return float64(r.Delivered) / r.Elapsed.Seconds() }

// PerTask is the processor time a part spent on a task.
func (r EndToEndReport) PerTask(part int) time.Duration {
	return r.CPU[part] / time.Duration(max(1, r.Delivered))
}

// Run measures for the load's length, after one round of each client that does
// not count.
func (b EndToEnd) Run(ctx context.Context) (EndToEndReport, error) {
	warm := Load{Clients: b.Load.Clients, Length: time.Nanosecond}
	if err := warm.Run(ctx, func(ctx context.Context, _ int) error { return b.round(ctx, nil) }).check("end to end, warm up"); err != nil {
		return EndToEndReport{}, err
	}
	var delivered atomic.Int64
	m, err := startMeter(b.Parts)
	if err != nil {
		return EndToEndReport{}, err
	}
	rounds := b.Load.Run(ctx, func(ctx context.Context, _ int) error { return b.round(ctx, &delivered) })
	used, err := m.stop()
	if err != nil {
		return EndToEndReport{}, err
	}
	out := EndToEndReport{Delivered: delivered.Load(), Elapsed: rounds.Elapsed, Rounds: rounds, CPU: used}
	return out, rounds.check("end to end")
}

// round is one client's submits and their ends.
func (b EndToEnd) round(ctx context.Context, delivered *atomic.Int64) error {
	body := requestBody()
	ids := make([]task.ID, b.Tasks)
	for i := range ids {
		accepted, err := b.Client.SubmitRaw(ctx, body, "")
		if err != nil {
			return err
		}
		ids[i] = accepted.TaskID
	}
	return b.Client.TailMany(ctx, ids, func(e event.Event) error {
		switch {
		case !e.Type.Terminal():
		case e.Type != event.Succeeded:
			return fmt.Errorf("task %s ended as %s", e.TaskID, e.Type)
		case delivered != nil:
			delivered.Add(1)
		}
		return nil
	})
}
