package follow

import (
	"cmp"
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/internal/eventlog"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// reconnectPause keeps a dead Redis from being asked all the time.
const reconnectPause = 250 * time.Millisecond

// runLive holds one live connection after the other.
func (f *Follower) runLive(ctx context.Context) {
	for ctx.Err() == nil {
		err := f.session(ctx)
		f.disconnect()
		if ctx.Err() != nil {
			return
		}
		f.metrics.reconnects.Inc()
		f.p.Log.Warn("live connection to redis lost", "err", err)
		lifecycle.Pause(ctx, reconnectPause)
	}
}

// session subscribes to everything that is watched, and on, until the
// connection fails.
func (f *Follower) session(ctx context.Context) error {
	live := f.log.Live()
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { _ = live.Close() }) // frees Receive
	defer stop()
	defer live.Close()
	f.connect()
	g.Go(func() error { return f.send(ctx, live) })
	g.Go(func() error { return f.receive(ctx, live) })
	return g.Wait()
}

// connect starts with nothing subscribed and everything wanted.
func (f *Follower) connect() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.connected = true
	clear(f.subscribed)
	clear(f.unanswered)
	for id := range f.feeds {
		f.touched = append(f.touched, id)
	}
	wake(f.changed)
}

// disconnect makes every watcher read again what it may have missed, once the
// new subscription stands.
func (f *Follower) disconnect() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.connected = false
	f.touched = nil
	for _, d := range f.feeds {
		if !d.ready {
			continue
		}
		d.ready = false
		for _, w := range d.watches {
			w.stream.unready++
			w.reread()
		}
	}
}

// send tells the connection which feeds came and went, many in one command.
func (f *Follower) send(ctx context.Context, live *eventlog.Live) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-f.changed:
		}
		on, off := f.difference()
		if err := live.Watch(ctx, on); err != nil {
			return err
		}
		if err := live.Unwatch(ctx, off); err != nil {
			return err
		}
	}
}

// difference is what to subscribe to and what to leave.
func (f *Follower) difference() (on, off []task.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range f.touched {
		d := f.feeds[id]
		_, subscribed := f.subscribed[id]
		switch {
		case d != nil && !subscribed:
			f.subscribed[id] = struct{}{}
			f.unanswered[id]++
			on = append(on, id)
		case d != nil && f.unanswered[id] == 0:
			f.makeReady(d) // dropped and watched again before anybody looked
		case d == nil && subscribed:
			delete(f.subscribed, id)
			off = append(off, id)
		}
	}
	f.touched = nil
	return on, off
}

// receive passes on what the connection brings.
func (f *Follower) receive(ctx context.Context, live *eventlog.Live) error {
	for {
		n, err := live.Receive(ctx)
		if err != nil {
			return err
		}
		f.notice(n)
	}
}

func (f *Follower) notice(n eventlog.Notice) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.feeds[n.Task]
	if n.Ready {
		// Every SUBSCRIBE is answered: only the last answer says that what was
		// subscribed anew stands.
		if f.unanswered[n.Task]--; f.unanswered[n.Task] > 0 {
			return
		}
		delete(f.unanswered, n.Task)
		if d != nil {
			f.makeReady(d)
		}
		return
	}
	if d != nil {
		f.put(d, item{Entry: n.Entry})
	}
}

// makeReady lets the watchers of a feed read history.
func (f *Follower) makeReady(d *feed) {
	if _, subscribed := f.subscribed[d.id]; d.ready || !subscribed {
		return
	}
	d.ready = true
	for _, w := range d.watches {
		if w.stream.unready--; w.stream.unready == 0 || w.stream.changes {
			wake(w.stream.wake)
		}
	}
}

const (
	// lookups is how many watched tasks are looked up in one round trip: so few that
	// events do not wait for long behind them.
	lookups = 32
	// endsEvery is how many beats there are to one that asks whether tasks have ended,
	// too. An end is an event of the stream, where every beat finds it; only of a
	// stream that is lost does the task alone know.
	endsEvery = 4
)

// runHeartbeat looks every watched task up from time to time, in case a live
// event was lost without anybody noticing.
func (f *Follower) runHeartbeat(ctx context.Context) {
	ticker := time.NewTicker(f.p.Heartbeat)
	defer ticker.Stop()
	var all []watched
	for beat := 0; ; beat++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		all = f.watchedTasks(all)
		f.lookUpAll(ctx, all, beat%endsEvery == 0)
	}
}

// lookUpAll spreads the round trips over half the time until the next beat:
// thousands of tasks at once would hold up the events.
func (f *Follower) lookUpAll(ctx context.Context, all []watched, ends bool) {
	between := f.p.Heartbeat / time.Duration(2+2*len(all)/lookups)
	for more := len(all) > 0; more; {
		n := min(len(all), lookups)
		if err := f.lookUp(ctx, all[:n], ends); err != nil {
			f.p.Log.Debug("look up watched tasks", "err", err)
			return
		}
		all = all[n:]
		more = len(all) > 0 && lifecycle.Pause(ctx, between)
	}
}

// watched is a task that is looked up.
type watched struct {
	id        task.ID
	partition int32
}

// watchedTasks are the tasks whose subscription stands, those of a partition
// together, for of these many are looked up with one command. It takes over all,
// what it returned before: there are thousands of them.
func (f *Follower) watchedTasks(all []watched) []watched {
	all = f.standing(all[:0])
	for i := range all {
		all[i].partition = f.store.Partition(all[i].id)
	}
	slices.SortFunc(all, func(a, b watched) int { return cmp.Compare(a.partition, b.partition) })
	return all
}

func (f *Follower) standing(all []watched) []watched {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, d := range f.feeds {
		if d.ready {
			all = append(all, watched{id: id})
		}
	}
	return all
}

// lookUp compares what Redis holds of tasks with what their watchers have got,
// and lets those read again who lack something. Ends has it ask for those, too.
func (f *Follower) lookUp(ctx context.Context, some []watched, ends bool) error {
	heard := f.heard(some)
	if len(heard) == 0 {
		return nil
	}
	there, err := f.log.Nexts(ctx, heard)
	if err != nil {
		return err
	}
	if ends {
		if err := f.lookForEnds(ctx, heard, there); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, h := range heard {
		if d := f.feeds[h.ID]; d != nil {
			for _, w := range d.watches {
				if w.seen.Less(there[i]) && w.pos == d.end() {
					w.reread()
				}
			}
		}
	}
	return nil
}

// lookForEnds puts the ends of tasks in the place of what comes before them.
func (f *Follower) lookForEnds(ctx context.Context, heard []eventlog.Range, there []event.ID) error {
	ids := make([]task.ID, len(heard))
	for i, h := range heard {
		ids[i] = h.ID
	}
	ends, err := f.store.Ends(ctx, ids)
	if err != nil {
		return err
	}
	for i, end := range ends {
		if there[i].Less(end) {
			there[i] = end
		}
	}
	return nil
}

// heard is how far those watchers of tasks have come who have all that came live;
// the others will look by themselves.
func (f *Follower) heard(some []watched) []eventlog.Range {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]eventlog.Range, 0, len(some))
	for _, t := range some {
		d := f.feeds[t.id]
		if d == nil {
			continue
		}
		waits := false
		at := eventlog.Range{ID: t.id}
		for _, w := range d.watches {
			if w.pos == d.end() && (!waits || w.seen.Less(at.After)) {
				at.After, waits = w.seen, true
			}
		}
		if waits {
			out = append(out, at)
		}
	}
	return out
}
