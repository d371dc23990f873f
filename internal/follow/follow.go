// Package follow brings the events of tasks to those who watch them: to SSE
// clients, to callers that wait for a result, to a cancel that asks who won.
//
// However many watch a task, the process subscribes to it once. A watcher gets
// history after the last event it has seen, then what is live, each event once
// and in order: the subscription stands before history is read, and what both
// bring is dropped by id. A hole inside a fence is filled from the stream, and
// told as `gap` if it cannot be. Events of two attempts are never joined
// without a `restart` between them.
//
// Terminals also come from the live end of `penstock.results` itself, so that
// watchers get them without Redis. A tail cannot know what came before it, so
// such a terminal is delivered only when Redis confirms it as the winner, or
// when the task is younger than the tail and nothing of it has been forgotten, or
// when Redis has shown the task open after everything that came before the tail.
// The age of a task says nothing if its id comes from an idempotency key.
package follow

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// Errors of a watch.
var (
	ErrSlow = errors.New("watcher is too slow: resume after the last event")
	ErrIdle = errors.New("no event yet")

	// ErrExpired is what Wait returns for a result past its time to live.
	ErrExpired = errors.New("the task's result has expired")
)

// Params are the developer's choices; zero values are the defaults.
type Params struct {
	Service   string        // names the metrics: penstock_<service>_…; default resultsvc
	Heartbeat time.Duration // how often every watched task is looked up; default 15 s
	TailGrace time.Duration // how long a tailed terminal waits for Redis to bring it; default 250 ms
	Confirm   time.Duration // how long Redis has to confirm one; default 300 ms
	Skew      time.Duration // how far clocks may differ; default 5 s
	Remember  int           // tasks whose end the tail remembers; default 131,072
	Ring      int           // events kept per watched task; default 512
	RingBytes int           // and their bytes; default 1 MiB

	Log      *slog.Logger          // default: none
	Registry prometheus.Registerer // default: none
}

func (p Params) withDefaults() Params {
	set := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	set(&p.Heartbeat, 15*time.Second)
	set(&p.TailGrace, 250*time.Millisecond)
	set(&p.Confirm, 300*time.Millisecond)
	set(&p.Skew, 5*time.Second)
	if p.Service == "" {
		p.Service = "resultsvc"
	}
	if p.Remember == 0 {
		p.Remember = 1 << 17
	}
	if p.Ring == 0 {
		p.Ring = 512
	}
	if p.RingBytes == 0 {
		p.RingBytes = 1 << 20
	}
	if p.Log == nil {
		p.Log = slog.New(slog.DiscardHandler)
	}
	if p.Registry == nil {
		p.Registry = prometheus.NewRegistry()
	}
	return p
}

// Follower watches tasks for the whole process. It is safe for concurrent use.
// Nothing is delivered before Run.
type Follower struct {
	store   *taskstore.Store
	log     *eventlog.Log
	p       Params
	metrics *metrics
	tail    *tail

	changed chan struct{} // 1 slot: feeds came or went since the last look
	due     chan struct{} // 1 slot: the tail has something to deliver

	mu         sync.Mutex // guards what follows, and every feed; never held across I/O
	feeds      map[task.ID]*feed
	touched    []task.ID            // feeds to compare with the connection
	subscribed map[task.ID]struct{} // commands sent on the connection
	unanswered map[task.ID]int      // SUBSCRIBEs sent and not acknowledged
	connected  bool
}

// New returns a follower over a task store and an event log of the same Redis.
func New(store *taskstore.Store, log *eventlog.Log, p Params) *Follower {
	p = p.withDefaults()
	return &Follower{
		store: store, log: log, p: p, metrics: newMetrics(p.Registry, p.Service), tail: newTail(p.Remember, p.Skew),
		changed: make(chan struct{}, 1), due: make(chan struct{}, 1),
		feeds:      map[task.ID]*feed{},
		subscribed: map[task.ID]struct{}{}, unanswered: map[task.ID]int{},
	}
}

// Run keeps the subscription, the heartbeat and the tail's deliveries going
// until ctx is done. A Redis that is down is waited for.
func (f *Follower) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { f.runLive(ctx); return nil })
	g.Go(func() error { f.runHeartbeat(ctx); return nil })
	g.Go(func() error { f.runDeliveries(ctx); return nil })
	return g.Wait()
}

// feed is one watched task: a ring of its latest events. It is guarded by the
// follower's lock.
type feed struct {
	id       task.ID
	watches  []*watch
	ready    bool // the subscription stands on the present connection
	vouched  int  // what tail.vouch said when Redis last showed the task open; 0: nothing
	ring     []item
	base     uint64 // position of ring[0]; positions only grow
	ringSize int    // bytes
}

// item is one event of a ring. A direct one came from the log itself and needs
// no history before it.
type item struct {
	eventlog.Entry
	direct bool
}

func (d *feed) end() uint64 { return d.base + uint64(len(d.ring)) }

// top is the newest id in the ring.
func (d *feed) top() event.ID {
	if len(d.ring) == 0 {
		return event.ID{}
	}
	return d.ring[len(d.ring)-1].ID
}

// put adds an event to a feed and wakes its watchers. What is not newer than
// the ring's newest is a repetition, or a writer that was replaced.
func (f *Follower) put(d *feed, it item) {
	if len(d.ring) > 0 && !d.top().Less(it.ID) {
		return
	}
	d.ring = append(d.ring, it)
	d.ringSize += len(it.Data)
	drop := 0
	for size := d.ringSize; len(d.ring)-drop > 1 && (len(d.ring)-drop > f.p.Ring || size > f.p.RingBytes); drop++ {
		size -= len(d.ring[drop].Data)
		d.ringSize = size
	}
	if drop > 0 {
		clear(d.ring[:drop]) // let the events go even if the array stays
		d.ring = d.ring[drop:]
		d.base += uint64(drop)
	}
	for _, w := range d.watches {
		w.soil()
	}
}

// register puts watches to their feeds and asks for what is not subscribed.
func (f *Follower) register(watches []*watch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range watches {
		d := f.feeds[w.id]
		if d == nil {
			d = &feed{id: w.id}
			f.feeds[w.id] = d
			f.touch(w.id)
			f.metrics.watched.Inc()
		}
		w.feed = d
		w.pos = d.end()
		if n := len(d.ring); n > 0 && d.ring[n-1].ID.Fence.Terminal() {
			w.pos-- // the end itself may not be in history yet
			w.soil()
		}
		if !d.ready {
			w.stream.unready++
		}
		d.watches = append(d.watches, w)
	}
}

// touch has a feed compared with the connection. Without one there is nothing
// to compare: the next begins with all feeds.
func (f *Follower) touch(id task.ID) {
	if f.connected {
		f.touched = append(f.touched, id)
		wake(f.changed)
	}
}

// release takes watches from their feeds. A feed nobody watches is dropped.
func (f *Follower) release(watches []*watch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range watches {
		d := w.feed
		if d == nil {
			continue
		}
		w.feed = nil
		if !d.ready {
			w.stream.unready--
		}
		for i := range d.watches {
			if d.watches[i] == w {
				d.watches[i] = d.watches[len(d.watches)-1]
				d.watches = d.watches[:len(d.watches)-1]
				break
			}
		}
		if len(d.watches) == 0 {
			delete(f.feeds, d.id)
			f.touch(d.id)
			f.metrics.watched.Dec()
		}
	}
}

// wake fills a channel of one slot; a full one is as good.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
