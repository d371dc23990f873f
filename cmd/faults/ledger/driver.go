package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock/penstock/cmd/penstock/client"
)

// Driver submits a load. A refusal that asks for patience is obeyed; a submit
// whose outcome is not known is sent again under its key until it is known or
// the patience is over.
type Driver struct {
	Doors    Doors
	Book     *Book
	Clients  int           // submits under way at once; default 8
	Rate     float64       // submits begun per second; 0: as fast as the clients go
	Patience time.Duration // with one task; default 2 min
	Again    float64       // share of the accepted tasks that are submitted a second time, 0 to 1
	OnAccept func(Entry)   // called for each 202, on the submitting goroutine; may be nil

	began atomic.Int64
}

// Doors are how a run reaches the system: the addresses of each role and each
// tenant's key. A nil Keys sends none.
type Doors struct {
	Producers, Results []string // base URLs; the first that answers is used
	Keys               map[string]string
}

const (
	callLimit  = 15 * time.Second       // of one submit
	retryLeast = 200 * time.Millisecond // between two tries
	retryMost  = 5 * time.Second        // whatever Retry-After asks for: this is a test
)

// Run submits every task of the load, or those that ctx leaves time for.
func (d *Driver) Run(ctx context.Context, l Load) error {
	clients, err := d.Doors.clients(d.Doors.Producers)
	if err != nil {
		return err
	}
	defer closeAll(clients)
	jobs := make(chan Job) // unbuffered: a job is taken when it can be sent
	var wg sync.WaitGroup
	for i := range max(1, cmp.Or(d.Clients, 8)) {
		wg.Go(func() {
			for j := range jobs {
				d.submit(ctx, clients[j.Tenant], i, j)
			}
		})
	}
	d.feed(ctx, l, jobs)
	close(jobs)
	wg.Wait()
	return nil
}

// Began counts the tasks whose first submit was sent.
func (d *Driver) Began() int { return int(d.began.Load()) }

// feed hands the jobs out, at the rate if there is one.
func (d *Driver) feed(ctx context.Context, l Load, jobs chan<- Job) {
	began := time.Now()
	for n := range l.Tasks {
		if d.Rate > 0 && wait(ctx, time.Until(began.Add(time.Duration(float64(n)/d.Rate*float64(time.Second))))) != nil {
			return
		}
		select {
		case jobs <- l.Job(n):
		case <-ctx.Done():
			return
		}
	}
}

func (d *Driver) submit(ctx context.Context, doors []*client.Client, first int, j Job) {
	d.began.Add(1)
	patience := d.Patience
	if patience == 0 {
		patience = 2 * time.Minute
	}
	over := time.Now().Add(patience)
	for try := 0; ctx.Err() == nil; try++ {
		pause, done := d.once(ctx, doors[(first+try)%len(doors)], j)
		if done || time.Now().After(over) {
			return
		}
		if wait(ctx, pause) != nil {
			return
		}
	}
}

// once sends a submit and notes what came of it. It reports how long to wait
// before the next try, and whether there is none.
func (d *Driver) once(ctx context.Context, door *client.Client, j Job) (time.Duration, bool) {
	d.Book.asked(j)
	call, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	got, err := door.Submit(call, j.Request, j.Key)
	if err != nil {
		refused, final := meaning(err)
		d.Book.answered(j, refused && final, err.Error())
		return pauseOf(err), final
	}
	d.Book.accepted(j, got.TaskID)
	if d.OnAccept != nil {
		if e, ok := d.Book.entry(got.TaskID); ok {
			d.OnAccept(e)
		}
	}
	if d.again(j) {
		d.repeat(ctx, door, j)
	}
	return 0, true
}

func (d *Driver) again(j Job) bool { return float64(j.N%100) < d.Again*100 }

// repeat submits an accepted task once more: whatever comes, it must not be
// another one.
func (d *Driver) repeat(ctx context.Context, door *client.Client, j Job) {
	call, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if got, err := door.Submit(call, j.Request, j.Key); err == nil {
		d.Book.accepted(j, got.TaskID)
	}
}

// meaning tells what an error says of the task: certainly not accepted, and
// that no further try will change it. A 503 may mean either, and so is unknown.
func meaning(err error) (refused, final bool) {
	switch status := client.StatusOf(err); {
	case status == http.StatusTooManyRequests:
		return true, false
	case status >= 400 && status < 500:
		return true, true
	default:
		return false, false
	}
}

func pauseOf(err error) time.Duration {
	pause := retryLeast
	if e, ok := errors.AsType[*client.Error](err); ok && e.RetryAfter > 0 {
		pause = e.RetryAfter
	}
	return max(retryLeast, min(retryMost, pause))
}

// clients opens one client for each tenant and base URL.
func (d Doors) clients(bases []string) (map[string][]*client.Client, error) {
	out := map[string][]*client.Client{}
	for tenant := range d.tenants() {
		for _, base := range bases {
			cl, err := client.New(client.Config{API: base, Key: d.Keys[tenant]})
			if err != nil {
				return nil, fmt.Errorf("open client of %s: %w", tenant, err)
			}
			out[tenant] = append(out[tenant], cl)
		}
	}
	return out, nil
}

// DevTenant is everybody where no keys are asked for.
const DevTenant = "dev"

func (d Doors) tenants() map[string]string {
	if d.Keys == nil {
		return map[string]string{DevTenant: ""}
	}
	return d.Keys
}

func closeAll(clients map[string][]*client.Client) {
	for _, list := range clients {
		for _, cl := range list {
			cl.Close()
		}
	}
}

// wait lasts for d, unless ctx ends first.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
