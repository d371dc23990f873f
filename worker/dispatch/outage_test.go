package dispatch_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/schema/fault"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/backend"
)

// plant is an engine that computes one call after another and is switched off
// and on: what it computes then breaks, and what comes later is refused.
type plant struct {
	turn chan struct{} // holds one call

	mu    sync.Mutex
	off   chan struct{} // closed while it is away
	began []time.Time   // of calls
	sizes []int
}

func newPlant() *plant { return &plant{turn: make(chan struct{}, 1), off: make(chan struct{})} }

func (p *plant) switchOff() { close(p.off) }

func (p *plant) switchOn() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.off, p.began, p.sizes = make(chan struct{}), nil, nil
}

func (p *plant) run(_ context.Context, items []backend.Item) []backend.Outcome {
	p.mu.Lock()
	p.began, p.sizes = append(p.began, time.Now()), append(p.sizes, len(items))
	off := p.off
	p.mu.Unlock()
	select {
	case <-off:
		return backend.Fail(len(items), &fault.Error{Code: fault.Unavailable, Class: fault.ClassSystem, Message: "refused"})
	default:
	}
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-off:
		return p.broken(items)
	}
	select {
	case <-time.After(150*time.Millisecond + time.Duration(len(items))*10*time.Millisecond):
		return succeed(context.Background(), items)
	case <-off:
		return p.broken(items)
	}
}

func (p *plant) broken(items []backend.Item) []backend.Outcome {
	return backend.Fail(len(items), &fault.Error{Code: fault.Unavailable, Err: errors.New("connection reset")})
}

// calls returns how many calls began since a moment, and the tasks in them.
func (p *plant) calls(since time.Time) (calls, tasks int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, at := range p.began {
		if !at.Before(since) {
			calls, tasks = calls+1, tasks+p.sizes[i]
		}
	}
	return calls, tasks
}

// TestFiveMinutesWithoutABackend is F15 in virtual time: nothing is buried or
// charged, the backend is asked once a second at most, and what had been in
// flight does not run one by one afterwards.
func TestFiveMinutesWithoutABackend(t *testing.T) {
	const away, openWithin, tasks = 5 * time.Minute, 5 * time.Second, 1000
	inWorld(t, nil, func(w *world) {
		p := newPlant()
		w.backend.Do = p.run
		for range tasks {
			w.submit(nil)
		}
		w.sleep(5 * time.Second)
		calls, ran := p.calls(time.Time{})
		full := float64(ran) / float64(calls)
		before := len(w.ends)
		p.switchOff()
		w.sleep(openWithin)
		opened := time.Now()
		w.sleep(away - openWithin)
		if probes, _ := p.calls(opened); probes > int((away-openWithin)/time.Second) || probes == 0 {
			t.Errorf("%d probes in %s", probes, away-openWithin)
		}
		if len(w.letters) != 0 || len(w.ends) > before || before == 0 {
			t.Errorf("%d dead letters, %d terminals before and %d after the outage", len(w.letters), before, len(w.ends))
		}
		p.switchOn()
		w.sleep(2 * time.Minute)
		if len(w.ends) != tasks {
			t.Errorf("%d of %d tasks ended", len(w.ends), tasks)
		}
		calls, ran = p.calls(time.Time{})
		if after := float64(ran) / float64(calls); after < 0.9*full {
			t.Errorf("calls of %.1f tasks after the outage, of %.1f before", after, full)
		}
		for id, ends := range w.ends {
			if len(ends) != 1 || ends[0].Status != task.Succeeded || len(ends[0].Attempts) != 1 {
				t.Fatalf("task %s: %d terminals, the first %s after %d attempts", id, len(ends), ends[0].Status, len(ends[0].Attempts))
			}
		}
	})
}

// TestATaskThatBreaksItsEngineIsFoundInTheEnd has one task whose call takes the
// engine away for a while, so that no batch can be split to the end. Halving
// finds it, and its neighbours pay nothing.
func TestATaskThatBreaksItsEngineIsFoundInTheEnd(t *testing.T) {
	var culprit task.ID
	var back time.Time
	var sizes []int // of the calls that broke it
	inWorld(t, nil, func(w *world) {
		var mu sync.Mutex
		w.backend.Do = func(ctx context.Context, items []backend.Item) []backend.Outcome {
			mu.Lock()
			defer mu.Unlock()
			if time.Now().Before(back) {
				return backend.Fail(len(items), &fault.Error{Code: fault.Unavailable, Class: fault.ClassSystem})
			}
			for _, it := range items {
				if it.Task.ID == culprit {
					back, sizes = time.Now().Add(3*time.Second), append(sizes, len(items))
					return backend.Fail(len(items), &fault.Error{Code: fault.Unavailable})
				}
			}
			return succeed(ctx, items)
		}
		w.submit(func(tk *task.Task, _ *task.Progress) { culprit = tk.ID })
		for range 200 { // work goes on, so that it is never alone by chance
			w.submit(nil)
			w.sleep(500 * time.Millisecond)
		}
		w.sleep(time.Minute)
		for id, ends := range w.ends {
			if id != culprit && (ends[0].Status != task.Succeeded || len(ends[0].Attempts) != 1) {
				t.Errorf("a neighbour ended %s after %d attempts", ends[0].Status, len(ends[0].Attempts))
			}
		}
		if w.ends[culprit] == nil && len(w.again) == 0 || len(w.ends) < 200 {
			t.Errorf("%d tasks ended, the culprit broke the engine in calls of %v", len(w.ends), sizes)
		}
	})
}
