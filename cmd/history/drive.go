package history

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/worker/redrive"
)

// Params say what clients do to a system.
type Params struct {
	Clients  []*client.Client // each on the replicas it likes; those of one task take turns among them
	Requests []api.SubmitRequest
	Tasks    []task.ID     // accepted before, and watched too
	PerTask  int           // clients of one task at once
	Pause    time.Duration // the longest between two calls of one of them
	Seed     uint64        // of what they choose

	// Enough ends it all; it is asked now and then how many calls of each kind
	// told an end.
	Enough func(ends map[Kind]int) bool
}

// Drive submits every request and lets clients read, cancel and redrive the
// tasks at random, all at once, until it is enough or ctx ends. A task that was
// not accepted has no history.
func (r *Recorder) Drive(ctx context.Context, p Params) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var work sync.WaitGroup
	defer work.Wait()
	watch := func(i int, id task.ID) {
		for j := range p.PerTask {
			n := i*p.PerTask + j
			d := driver{
				r: r, cl: p.Clients[n%len(p.Clients)], id: id, number: n, pause: p.Pause,
				rng: rand.New(rand.NewPCG(p.Seed, uint64(n))),
			}
			work.Go(func() { d.run(ctx) })
		}
	}
	for i, request := range p.Requests {
		work.Go(func() {
			request.Labels = map[string]string{label: "yes"}
			if accepted, err := p.Clients[i%len(p.Clients)].Submit(ctx, request, ""); err == nil {
				watch(i, accepted.TaskID)
			}
		})
	}
	for i, id := range p.Tasks {
		watch(len(p.Requests)+i, id)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !p.Enough(r.Ends()) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
	stop()
}

// label is on every task that is watched, so that a list shows those.
const label = "history"

// driver is one client of one task.
type driver struct {
	r      *Recorder
	cl     *client.Client
	id     task.ID
	number int
	pause  time.Duration
	rng    *rand.Rand
}

func (d *driver) run(ctx context.Context) {
	dead := false
	for ctx.Err() == nil {
		kind, call := d.choose(ctx, dead)
		saw := d.r.Do(d.number, d.id, kind, call)
		dead = saw.Status == task.Dead || dead && saw.Status == ""
		timer := time.NewTimer(time.Duration(d.rng.Int64N(int64(d.pause) + 1)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

func (d *driver) choose(ctx context.Context, dead bool) (Kind, func() Seen) {
	switch n := d.rng.IntN(100); {
	case n < 1:
		return Cancel, func() Seen { return d.cancel(ctx) }
	case n < 25 && dead:
		return Redrive, func() Seen { return d.redrive(ctx) }
	case n < 40:
		return Read, func() Seen { return d.poll(ctx, time.Second) }
	case n < 50:
		return Read, func() Seen { return d.stream(ctx) }
	case n < 60:
		return Read, func() Seen { return d.list(ctx) }
	default:
		return Read, func() Seen { return d.poll(ctx, 0) }
	}
}

func (d *driver) poll(ctx context.Context, wait time.Duration) Seen {
	t, err := d.cl.Task(ctx, d.id, wait)
	return seen(t, err)
}

func (d *driver) cancel(ctx context.Context) Seen {
	t, pending, err := d.cl.Cancel(ctx, d.id)
	if pending {
		return Seen{Unknown: true}
	}
	return seen(t, err)
}

// list sees the task where the tenant's tasks are listed. An open one need not
// be there.
func (d *driver) list(ctx context.Context) Seen {
	page, err := d.cl.List(ctx, client.Filter{Label: label + "=yes", Limit: api.MaxList})
	for _, t := range page.Tasks {
		if t.TaskID == d.id && t.Status.Terminal() {
			return Seen{Generation: t.Generation, Status: t.Status, Mark: markOf(t)}
		}
	}
	if err == nil {
		err = errors.New("not on the first page")
	}
	return seen(api.Task{}, err)
}

// streamLimit is how long an event stream is watched for its end.
const streamLimit = 2 * time.Second

func (d *driver) stream(ctx context.Context) Seen {
	ctx, stop := context.WithTimeout(ctx, streamLimit)
	defer stop()
	var end Seen
	err := d.cl.Tail(ctx, d.id, event.ID{}, func(e event.Event) error {
		if e.Result != nil {
			end = ofTerminal(e.Result, e.ID.Fence.Generation())
		}
		return nil
	})
	if end.Status == "" || err != nil {
		return Seen{Unknown: true} // cut off before the end
	}
	return end
}

func ofTerminal(t *terminal.Terminal, generation uint8) Seen {
	return seen(api.OfTerminal(t, generation), nil)
}

// redrive waits for its job: what it reports is what happened.
func (d *driver) redrive(ctx context.Context) Seen {
	job, err := d.cl.Redrive(ctx, redrive.Request{IDs: []string{string(d.id)}})
	for err == nil && job.EndedAt.IsZero() && job.State != redrive.JobPaused {
		timer := time.NewTimer(10 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		job, err = d.cl.RedriveJob(ctx, job.ID)
	}
	if err != nil {
		return Seen{Unknown: client.StatusOf(err) != 404} // 404: there was no such letter
	}
	return Seen{Reopened: job.Redriven == 1, Unknown: job.EndedAt.IsZero()}
}

func seen(t api.Task, err error) Seen {
	if err != nil {
		return Seen{Unknown: true}
	}
	s := Seen{Generation: t.Generation, Status: t.Status}
	if t.Status.Terminal() {
		s.Mark = markOf(t)
	}
	return s
}

// markOf names a terminal by what every way of reading it tells: when it came,
// and what of. A list leaves outputs out.
func markOf(t api.Task) string {
	t.Output = nil
	raw, err := json.Marshal(t)
	if err != nil {
		return err.Error() // then two terminals differ, and the check says so
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:6])
}
