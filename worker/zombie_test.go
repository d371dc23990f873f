package worker_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	goredis "github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/worker"
	"github.com/penstock/penstock/worker/attempt/attempttest"
	"github.com/penstock/penstock/worker/backend"
)

// witness sees every entry that Redis takes, in the order in which it does.
type witness struct {
	mu      sync.Mutex
	tops    map[string]event.ID // by channel
	entries int
	zombies []string // entries below a fence that was there before
	holes   []string // entries that do not follow, and are no gap
	gaps    int
}

// watch lets a witness see what is written from now on.
func (w *world) watch() (*witness, func()) {
	w.t.Helper()
	rdb := w.rdb()
	sub := rdb.PSubscribe(context.Background(), "penstock:*")
	if _, err := sub.Receive(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	v := &witness{tops: map[string]event.ID{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			got, err := sub.Receive(context.Background())
			if err != nil {
				return // closed
			}
			if m, ok := got.(*goredis.Message); ok && strings.Contains(m.Channel, ":live:") {
				v.see(m.Channel, m.Payload)
			}
		}
	})
	return v, func() { _ = sub.Close(); wg.Wait(); _ = rdb.Close() }
}

func (v *witness) see(channel, payload string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	text, data, _ := strings.Cut(payload, " ")
	id, err := event.ParseID(text)
	top := v.tops[channel]
	gap := strings.HasPrefix(data, `{"type":"gap"`)
	if v.entries++; gap {
		v.gaps++
	}
	switch {
	case err != nil:
		v.holes = append(v.holes, payload)
	case id.Fence < top.Fence:
		v.zombies = append(v.zombies, fmt.Sprintf("%s %s after %s", channel, id, top))
	case id.Fence > top.Fence && id.Seq != 0, id.Fence == top.Fence && id.Seq > top.Seq+1 && !gap:
		v.holes = append(v.holes, fmt.Sprintf("%s %s after %s", channel, id, top))
	}
	if top.Less(id) {
		v.tops[channel] = id
	}
}

// takenOver is how many tasks have been written by more than the first attempt.
func (v *witness) takenOver(first map[string]event.ID) (n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for channel, id := range first {
		if v.tops[channel].Fence > id.Fence {
			n++
		}
	}
	return n
}

func (v *witness) heads() map[string]event.ID {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := map[string]event.ID{}
	for channel, id := range v.tops {
		out[channel] = id
	}
	return out
}

// staleCommits counts the commits that come in the name of a generation of the
// group that is over.
func (w *world) staleCommits() func() int {
	var mu sync.Mutex
	newest, stale := int32(0), 0
	w.cluster.ControlKey(int16(kmsg.OffsetCommit), func(r kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.KeepControl()
		req := r.(*kmsg.OffsetCommitRequest)
		if req.Group != topic.WorkerGroup("default") {
			return nil, nil, false
		}
		mu.Lock()
		defer mu.Unlock()
		if newest = max(newest, req.Generation); req.Generation < newest {
			stale++
		}
		return nil, nil, false
	})
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return stale
	}
}

// committed is how far the group has committed each partition.
func (w *world) committed() map[string]int64 {
	w.t.Helper()
	offsets, err := kadm.NewClient(w.cl).FetchOffsets(context.Background(), topic.WorkerGroup("default"))
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]int64{}
	offsets.Each(func(o kadm.OffsetResponse) { out[fmt.Sprintf("%s/%d", o.Topic, o.Partition)] = o.At })
	return out
}

// counted sums a counter's values under one label.
func counted(t *testing.T, reg *prometheus.Registry, name, label string) (n float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetValue() == label {
					n += m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}

// ice is a worker's connections, which can be held as those of a process that
// is stopped are: what it reads comes later, and so does what it wrote.
type ice struct {
	held atomic.Pointer[chan struct{}] // closed when they go on; nil: nothing is held

	mu    sync.Mutex // never held across I/O: in a bubble that would stop the clock
	conns map[*iced]struct{}
}

type iced struct {
	net.Conn
	ice    *ice
	turn   chan struct{} // holds the right to write
	queue  []byte        // written while held; with turn
	closed chan struct{}
	once   sync.Once
}

func (i *ice) over(dial func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if held := i.held.Load(); held != nil {
			select {
			case <-*held:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		out := &iced{Conn: c, ice: i, turn: make(chan struct{}, 1), closed: make(chan struct{})}
		i.mu.Lock()
		defer i.mu.Unlock()
		i.conns[out] = struct{}{}
		return out, nil
	}
}

func (i *ice) freeze() {
	held := make(chan struct{})
	i.held.Store(&held)
}

func (i *ice) melt() {
	close(*i.held.Swap(nil))
	i.mu.Lock()
	conns := slices.Collect(maps.Keys(i.conns))
	i.mu.Unlock()
	for _, c := range conns {
		c.turn <- struct{}{}
		c.flush()
		<-c.turn
	}
}

// flush sends what was written while nothing could be; with turn.
func (c *iced) flush() {
	if len(c.queue) > 0 {
		_ = c.SetWriteDeadline(time.Now().Add(time.Second)) // it was written in time
		_, _ = c.Conn.Write(c.queue)
		c.queue = nil
	}
}

func (c *iced) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if held := c.ice.held.Load(); held != nil {
		select {
		case <-*held:
		case <-c.closed:
			return 0, net.ErrClosed
		}
	}
	return n, err
}

func (c *iced) Write(b []byte) (int, error) {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	if c.ice.held.Load() != nil {
		c.queue = append(c.queue, b...)
		return len(b), nil
	}
	c.flush()
	return c.Conn.Write(b)
}

func (c *iced) Close() error {
	c.once.Do(func() { close(c.closed) })
	c.ice.mu.Lock()
	delete(c.ice.conns, c)
	c.ice.mu.Unlock()
	return c.Conn.Close()
}

// expel has the group's only member leave without its own doing. Until the
// returned function is called its heartbeats are answered as if nothing had
// happened, so that it learns of it only by what it tries to do.
func (w *world) expel() (tell func()) {
	w.t.Helper()
	group := topic.WorkerGroup("default")
	groups, err := kadm.NewClient(w.cl).DescribeGroups(context.Background(), group)
	if err != nil {
		w.t.Fatal(err)
	}
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group = group
	var member string
	for _, m := range groups[group].Members {
		member = m.MemberID
		leave.Members = append(leave.Members, kmsg.LeaveGroupRequestMember{MemberID: m.MemberID})
	}
	if resp, err := leave.RequestWith(context.Background(), w.cl); err != nil || len(resp.Members) != 1 || resp.Members[0].ErrorCode != 0 {
		w.t.Fatalf("%+v, %v", resp, err)
	}
	var blind atomic.Bool
	blind.Store(true)
	w.cluster.ControlKey(int16(kmsg.Heartbeat), func(r kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.KeepControl()
		if req := r.(*kmsg.HeartbeatRequest); blind.Load() && req.MemberID == member {
			return req.ResponseKind(), nil, true
		}
		return nil, nil, false
	})
	return func() { blind.Store(false) }
}

// freeze is one round: a worker is held until others have its tasks, Redis may
// be emptied meanwhile, and it wakes up.
type freeze struct {
	known   bool          // it finds out by itself that its session is over; else by what it tries to do
	flush   time.Duration // after the freeze began; negative: never
	release time.Duration
	first   time.Duration // how long the first one's runs take
	again   time.Duration // and its successor's
}

// outcome is what came of it.
type outcome struct {
	witness             *witness
	taken               int     // tasks that the successor had begun when the first woke
	fenced, unproven    float64 // streams that ended so
	stale, back, ending int     // commits of a former generation; partitions set back; tasks without an end
}

func (w *world) freeze(f freeze) (out outcome) {
	const tasks, pace = 4, 500 * time.Millisecond
	w.engine.script(func(ctx context.Context, items []backend.Item) []backend.Outcome {
		last := f.first
		if w.engine.count(items[0].Task.ID) > 1 {
			last = f.again
		}
		var said strings.Builder
		for i := range int(last / pace) {
			text := fmt.Sprintf("%d ", i)
			said.WriteString(text)
			items[0].Emit(backend.Piece{Text: text})
			time.Sleep(pace)
		}
		return []backend.Outcome{attempttest.OK(said.String())}
	})
	stale := w.staleCommits()
	var stop func()
	out.witness, stop = w.watch()
	defer stop()
	cold := &ice{conns: map[*iced]struct{}{}}
	calm := func(c *worker.Config) { c.TokenEvery, c.CommitInterval = 250*time.Millisecond, time.Second }
	first := w.start(calm, func(c *worker.Config) {
		c.Kafka.Dial, c.Redis.Dialer = cold.over(w.net.DialContext), cold.over(w.redis.Dial)
	})
	time.Sleep(10 * time.Second)
	for range tasks {
		w.submit(func(tk *task.Task) { tk.Stream = true })
	}
	time.Sleep(5 * time.Second)
	heads := out.witness.heads()

	cold.freeze()
	tell := func() {}
	if !f.known {
		tell = w.expel()
	}
	second := w.start(calm)
	var flushing sync.WaitGroup
	if f.flush >= 0 {
		flushing.Go(func() {
			time.Sleep(f.flush)
			w.redis.Redis().FlushAll()
		})
	}
	time.Sleep(f.release)
	out.taken = out.witness.takenOver(heads)
	before := w.committed()
	cold.melt()
	for range 20 { // in which the first learns what it missed
		time.Sleep(400 * time.Millisecond)
		now := w.committed()
		for p, at := range before {
			if now[p] < at {
				out.back++
			}
		}
		before = now
	}
	flushing.Wait()
	tell()
	time.Sleep(f.again + 10*time.Second)
	synctest.Wait()
	out.stale = stale()
	const ended = "penstock_worker_streams_ended_total"
	out.fenced, out.unproven = counted(w.t, first.reg, ended, "fenced"), counted(w.t, first.reg, ended, "unproven")
	second.stop()
	first.stop()
	ends, _ := w.ends()
	out.ending = tasks - len(ends)
	return out
}

// freezeOf draws a round from its seed.
func freezeOf(seed uint64) freeze {
	rnd := rand.New(rand.NewPCG(seed, 10))
	between := func(from, to time.Duration) time.Duration { return from + time.Duration(rnd.Int64N(int64(to-from))) }
	f := freeze{flush: -1, first: time.Minute, again: between(time.Second, 3*time.Second)}
	if f.known = rnd.IntN(2) == 0; f.known {
		f.release = between(14*time.Second, 40*time.Second)
	} else {
		f.release = between(4*time.Second, 9*time.Second)
	}
	if rnd.IntN(2) == 0 {
		f.again = between(3*time.Second, 40*time.Second)
	}
	if rnd.IntN(3) == 0 {
		f.first = between(6*time.Second, 20*time.Second) // it has something to settle and to commit
	}
	switch rnd.IntN(4) {
	case 0:
		f.flush = between(0, f.release)
	case 1, 2:
		f.flush = between(f.release-300*time.Millisecond, f.release+time.Second)
	}
	return f
}

// Fifty times, for what is shown is that something never happens.
func TestAFrozenWorkerThatWakesUpWritesNothing(t *testing.T) {
	const rounds = 50
	var mu sync.Mutex
	var sum outcome
	var entries, gaps int
	t.Run("rounds", func(t *testing.T) {
		for seed := range uint64(rounds) {
			t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
				t.Parallel()
				inWorld(t, func(t *testing.T, w *world) {
					f := freezeOf(seed)
					out := w.freeze(f)
					v := out.witness
					if len(v.zombies) > 0 || len(v.holes) > 0 || out.back > 0 || out.ending > 0 {
						t.Errorf("%+v: zombie entries %v, holes %v, %d commits went back, %d tasks have no end",
							f, v.zombies, v.holes, out.back, out.ending)
					}
					mu.Lock()
					defer mu.Unlock()
					sum.taken, sum.stale, entries, gaps = sum.taken+out.taken, sum.stale+out.stale, entries+v.entries, gaps+v.gaps
					sum.fenced, sum.unproven = sum.fenced+out.fenced, sum.unproven+out.unproven
				})
			})
		}
	})
	t.Logf("%d freezes: %d tasks taken over, %d entries of which 0 by zombies, %.0f streams refused by Redis and %.0f for want of a proof, %d stale commits of which 0 took effect, %d gaps",
		rounds, sum.taken, entries, sum.fenced, sum.unproven, sum.stale, gaps)
	if sum.taken < 2*rounds || sum.fenced == 0 || sum.unproven == 0 || sum.stale == 0 {
		t.Error("too few zombies tried to write")
	}
}
