package ledger

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/penstock/penstock/cmd/penstock/client"
	"github.com/penstock/penstock/schema/task"
)

// Poller asks for accepted tasks, and notes whatever is answered.
type Poller struct {
	Doors Doors
	Book  *Book
	Every time.Duration // between two polls of one client; default 10 ms
	Seed  uint64        // of the sample
}

// pollLimit is how long one poll may take.
const pollLimit = 10 * time.Second

// Run polls a sample, from every results service at once, until ctx is done.
func (p *Poller) Run(ctx context.Context) error {
	clients, err := p.Doors.clients(p.Doors.Results)
	if err != nil {
		return err
	}
	defer closeAll(clients)
	every := p.Every
	if every == 0 {
		every = 10 * time.Millisecond
	}
	var wg sync.WaitGroup
	for i := range p.Doors.Results {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(p.Seed, uint64(i)))
			for wait(ctx, every) == nil {
				if id, ok := p.Book.pick(rng); ok {
					p.one(ctx, clients, i, id, 0)
				}
			}
		})
	}
	wg.Wait()
	return nil
}

// Drain waits until every accepted task has been shown ended by every results
// service, and returns how many were not when ctx ended.
func (p *Poller) Drain(ctx context.Context) (open int, err error) {
	clients, err := p.Doors.clients(p.Doors.Results)
	if err != nil {
		return 0, err
	}
	defer closeAll(clients)
	left := make([]int, len(p.Doors.Results))
	var wg sync.WaitGroup
	for i := range p.Doors.Results {
		wg.Go(func() { left[i] = p.drain(ctx, clients, i) })
	}
	wg.Wait()
	for _, n := range left {
		open = max(open, n)
	}
	return open, nil
}

// drainers poll one results service at once.
const drainers = 8

func (p *Poller) drain(ctx context.Context, clients map[string][]*client.Client, i int) int {
	ids := make(chan task.ID)
	var (
		mu   sync.Mutex // guards open
		open int
		wg   sync.WaitGroup
	)
	for range drainers {
		wg.Go(func() {
			for id := range ids {
				if !p.untilEnded(ctx, clients, i, id) {
					mu.Lock()
					open++
					mu.Unlock()
				}
			}
		})
	}
	for _, id := range p.Book.Accepted() {
		ids <- id // the readers go on after ctx, to count
	}
	close(ids)
	wg.Wait()
	return open
}

func (p *Poller) untilEnded(ctx context.Context, clients map[string][]*client.Client, i int, id task.ID) bool {
	for ctx.Err() == nil {
		if p.one(ctx, clients, i, id, time.Second) {
			return true
		}
		if wait(ctx, retryLeast) != nil {
			break
		}
	}
	return false
}

// one polls a task and reports whether it has ended.
func (p *Poller) one(ctx context.Context, clients map[string][]*client.Client, i int, id task.ID, hold time.Duration) bool {
	e, ok := p.Book.entry(id)
	if !ok {
		return false
	}
	call, cancel := context.WithTimeout(ctx, pollLimit)
	defer cancel()
	began := time.Now()
	v, err := clients[e.Tenant][i].Task(call, id, hold)
	if ctx.Err() != nil {
		return false // the run is over, whatever was answered
	}
	if err != nil {
		p.Book.unanswered(id, err)
		return false
	}
	p.Book.saw(fmt.Sprintf("poll of %d", i+1), v, began)
	return v.Status.Terminal()
}

// pick returns any of the accepted tasks.
func (b *Book) pick(rng *rand.Rand) (task.ID, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.order) == 0 {
		return "", false
	}
	return b.order[rng.IntN(len(b.order))], true
}

// unanswered notes a poll without a task. An accepted id is never unknown.
func (b *Book) unanswered(id task.ID, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch client.StatusOf(err) {
	case http.StatusNotFound, http.StatusGone, http.StatusBadRequest:
		b.find("I1", id, "an accepted task is answered "+err.Error())
	default:
		b.polls.Unavailable++
	}
}
