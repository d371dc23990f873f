package batch_test

import (
	"fmt"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/penstock/penstock/worker/batch"
)

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func after(d time.Duration) time.Time { return start.Add(d) }

func item(name string, max int) batch.Item[string] {
	return batch.Item[string]{Value: name, Group: "m", Key: "k", Max: max}
}

func always(n int) func(string) int { return func(string) int { return n } }

// teach lets the batcher see an engine that costs 20 ms + 1 ms an item, one call
// at a time, and tasks that come in clumps of up to four, 1 ms apart.
func teach(b *batch.Batcher[string], now time.Time) time.Time {
	for i := range 12 {
		for range 1 + i%4 {
			now = now.Add(time.Millisecond)
			b.Add(item("lesson", 32), now)
		}
		for b.Len() > 0 {
			if got, ok := b.Next(now, always(8)); ok {
				now = run(b, got, now)
			} else if due, wait := b.Due(); wait {
				now = due
			}
		}
		now = now.Add(5 * time.Second)
	}
	return now
}

// run lets a batch's call take what it costs, and returns when it ended.
func run(b *batch.Batcher[string], got batch.Batch[string], now time.Time) time.Time {
	now = now.Add(20*time.Millisecond + time.Duration(len(got.Items))*time.Millisecond)
	b.Done(got, now, true)
	return now
}

func TestNext(t *testing.T) {
	type out struct {
		Items  []string
		Reason batch.Reason
	}
	next := func(b *batch.Batcher[string], now time.Time, free int) (out, bool) {
		got, ok := b.Next(now, func(string) int { return free })
		return out{got.Items, got.Reason}, ok
	}
	want := func(t *testing.T, b *batch.Batcher[string], now time.Time, free int, w out) {
		t.Helper()
		got, ok := next(b, now, free)
		if !ok || !gocmp.Equal(got, w) {
			t.Fatalf("got %+v, %v; want %+v", got, ok, w)
		}
	}
	none := func(t *testing.T, b *batch.Batcher[string], now time.Time, free int) {
		t.Helper()
		if got, ok := next(b, now, free); ok {
			t.Fatalf("got %+v, want nothing", got)
		}
	}

	t.Run("a first task goes at once", func(t *testing.T) {
		b := batch.New[string](batch.Policy{})
		b.Add(item("a", 32), start)
		want(t, b, start, 1, out{[]string{"a"}, batch.Idle})
	})
	t.Run("nothing goes while no call could start, and all that waits goes then", func(t *testing.T) {
		b := batch.New[string](batch.Policy{})
		b.Add(item("a", 32), start)
		b.Add(item("b", 32), after(time.Second))
		none(t, b, after(time.Second), 0)
		if at, ok := b.Due(); ok {
			t.Fatalf("due at %s, though only a free place can help", at)
		}
		want(t, b, after(2*time.Second), 1, out{[]string{"a", "b"}, batch.Idle})
	})
	t.Run("a full batch is cut, the rest stays", func(t *testing.T) {
		b := batch.New[string](batch.Policy{MaxTasks: 2})
		for _, n := range []string{"a", "b", "c"} {
			b.Add(item(n, 32), start)
		}
		want(t, b, start, 8, out{[]string{"a", "b"}, batch.Full})
		if b.Len() != 1 || b.Waiting("m") != 1 {
			t.Errorf("%d wait", b.Len())
		}
	})
	t.Run("an item's own maximum holds", func(t *testing.T) {
		b := batch.New[string](batch.Policy{})
		b.Add(item("a", 2), start)
		b.Add(item("b", 32), start)
		b.Add(item("c", 32), start)
		want(t, b, start, 8, out{[]string{"a", "b"}, batch.Full})
	})
	t.Run("an item that may not wait for others goes alone", func(t *testing.T) {
		b := batch.New[string](batch.Policy{})
		b.Add(item("a", 1), start)
		b.Add(item("b", 1), start)
		want(t, b, start, 8, out{[]string{"a"}, batch.Full})
		want(t, b, start, 8, out{[]string{"b"}, batch.Full})
	})
	t.Run("the token budget cuts, and an item above it goes alone", func(t *testing.T) {
		b := batch.New[string](batch.Policy{MaxTokens: 100})
		for i, n := range []int{60, 30, 20, 500} {
			it := item(fmt.Sprint(i), 32)
			it.Tokens = n
			b.Add(it, start)
		}
		want(t, b, start, 8, out{[]string{"0", "1"}, batch.Tokens})
		b.Drain()
		want(t, b, start, 8, out{[]string{"2"}, batch.Tokens})
		want(t, b, start, 8, out{[]string{"3"}, batch.Tokens})
	})
	t.Run("keys are never mixed, the longer waiting goes first", func(t *testing.T) {
		b := batch.New[string](batch.Policy{})
		x, y := item("x", 32), item("y", 32)
		y.Key = "other"
		b.Add(y, start)
		b.Add(x, after(time.Millisecond))
		want(t, b, after(time.Second), 8, out{[]string{"y"}, batch.Idle})
	})
	t.Run("draining waits for nothing", func(t *testing.T) {
		b := batch.New[string](batch.Policy{})
		now := teach(b, start)
		for i := range 3 {
			b.Add(item(fmt.Sprint(i), 32), now.Add(time.Duration(i)*time.Millisecond))
		}
		none(t, b, now.Add(2*time.Millisecond), 8)
		b.Drain()
		want(t, b, now.Add(2*time.Millisecond), 8, out{[]string{"0", "1", "2"}, batch.Drain})
	})
	t.Run("waits for company when that is worth it, and not for ever", func(t *testing.T) {
		b := batch.New[string](batch.Policy{})
		now := teach(b, start)
		b.Add(item("a", 32), now)
		b.Add(item("b", 32), now.Add(time.Millisecond))
		none(t, b, now.Add(time.Millisecond), 8) // a base of 20 ms, and one arrives every ms or so
		due, ok := b.Due()
		if wait := due.Sub(now); !ok || wait <= 0 || wait > 100*time.Millisecond {
			t.Fatalf("due in %s", due.Sub(now))
		}
		want(t, b, due, 8, out{[]string{"a", "b"}, batch.Delay})
	})
	t.Run("with arrivals a long way apart nobody waits", func(t *testing.T) {
		b := batch.New[string](batch.Policy{})
		now := start
		for i := range 30 {
			now = now.Add(200 * time.Millisecond)
			b.Add(item(fmt.Sprint(i), 32), now)
			got, ok := b.Next(now, always(8))
			if !ok || got.Reason != batch.Idle {
				t.Fatalf("task %d: %v, reason %q", i, ok, got.Reason)
			}
			now = run(b, got, now)
		}
	})
	t.Run("a serial engine that is offered eight calls gets one", func(t *testing.T) {
		b := batch.New[string](batch.Policy{})
		now := teach(b, start)
		b.Add(item("a", 32), now)
		first, _ := b.Next(now.Add(time.Second), always(8))
		for calls := range 40 { // the engine is serial: two at once take twice as long
			b.Add(item("b", 32), now)
			second, two := b.Next(now.Add(time.Second), always(8))
			now = now.Add(time.Second + 21*time.Millisecond)
			b.Done(first, now, true)
			if two {
				now = now.Add(21 * time.Millisecond)
				b.Done(second, now, true)
			}
			if calls > 10 && !two {
				return
			}
			b.Add(item("a", 32), now)
			first, _ = b.Next(now.Add(time.Second), always(8))
		}
		t.Error("two calls at once after 40 that slowed each other down")
	})
	t.Run("a deadline ends the wait", func(t *testing.T) {
		b := batch.New[string](batch.Policy{})
		now := teach(b, start)
		it := item("a", 32)
		it.Deadline = now.Add(25 * time.Millisecond) // the call takes 22, the margin is 10
		b.Add(it, now)
		b.Add(item("b", 32), now)
		want(t, b, now, 8, out{[]string{"a", "b"}, batch.Deadline})
	})
	t.Run("what is removed is gone", func(t *testing.T) {
		b := batch.New[string](batch.Policy{})
		b.Add(item("a", 32), start)
		b.Add(item("b", 1), start)
		b.Add(item("c", 32), start)
		if n := b.Remove(func(s string) bool { return s != "c" }); n != 2 || b.Len() != 1 {
			t.Fatalf("%d removed, %d left", n, b.Len())
		}
		want(t, b, start, 8, out{[]string{"c"}, batch.Idle})
	})
	t.Run("a call that hangs holds up nobody for long", func(t *testing.T) {
		b := batch.New[string](batch.Policy{})
		now := teach(b, start)
		hung := 0
		for range 4 {
			b.Add(item("x", 32), now)
			for b.Len() > 0 {
				if _, ok := b.Next(now, always(8)); ok {
					hung++
					continue
				}
				due, wait := b.Due()
				if !wait || due.Sub(now) > 2*time.Second {
					t.Fatalf("behind %d calls that hang: due in %s, %v", hung, due.Sub(now), wait)
				}
				now = due
			}
		}
	})
	t.Run("calls that tell nothing do not hold all others back", func(t *testing.T) {
		b := batch.New[string](batch.Policy{})
		now, most := start, 0
		for range 64 {
			b.Add(item("poison", 32), now)
			var running []batch.Batch[string]
			for range 4 {
				b.Add(item("x", 32), now)
				if got, ok := b.Next(now, always(8)); ok {
					running = append(running, got)
				}
			}
			most = max(most, len(running))
			now = now.Add(20 * time.Millisecond)
			for _, r := range running {
				b.Done(r, now, false)
			}
		}
		if most != 4 {
			t.Errorf("at most %d calls at once, want 4", most)
		}
	})
	t.Run("models and keys that are gone are forgotten", func(t *testing.T) {
		b := batch.New[string](batch.Policy{})
		for i := range 5000 {
			it := item("x", 32)
			it.Group, it.Key = fmt.Sprint("m", i%700), fmt.Sprint("k", i)
			b.Add(it, start)
			if got, ok := b.Next(start, always(8)); !ok || len(got.Items) != 1 {
				t.Fatalf("task %d: %v", i, got)
			} else {
				b.Done(got, after(time.Second), true)
			}
		}
		if b.Len() != 0 {
			t.Errorf("%d wait", b.Len())
		}
	})
	t.Run("groups take turns", func(t *testing.T) {
		b := batch.New[string](batch.Policy{MaxTasks: 1})
		for _, g := range []string{"m1", "m1", "m2", "m2"} {
			b.Add(batch.Item[string]{Value: g, Group: g, Max: 1}, start)
		}
		for _, w := range []string{"m1", "m2", "m1", "m2"} {
			want(t, b, start, 8, out{[]string{w}, batch.Full})
		}
	})
}

// Whatever happens in whatever order: nothing is lost or doubled, keys are not
// mixed, the order within one holds, so do all limits, and while a call could
// start nothing waits beyond the ceiling.
func TestBatcherKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := batch.Policy{
			MaxTasks:  rapid.IntRange(1, 8).Draw(t, "max tasks"),
			MaxTokens: rapid.SampledFrom([]int{0, 50}).Draw(t, "max tokens"),
			MaxDelay:  100 * time.Millisecond,
		}
		w := &world{t: t, b: batch.New[int](p), p: p, now: start, last: map[string]int{}}
		t.Repeat(map[string]func(*rapid.T){
			"add":  w.add,
			"next": w.next,
			"done": w.done,
			"pass": w.pass,
		})
		w.finish()
	})
}

type world struct {
	t       *rapid.T
	b       *batch.Batcher[int]
	p       batch.Policy
	now     time.Time
	items   []batch.Item[int]
	added   []time.Time
	seen    int
	last    map[string]int // by group and key: the newest item that left
	running []batch.Batch[int]
}

func (w *world) add(t *rapid.T) {
	it := batch.Item[int]{
		Value:  len(w.items),
		Group:  rapid.SampledFrom([]string{"m1", "m2"}).Draw(t, "group"),
		Key:    rapid.SampledFrom([]string{"k1", "k2", "k3"}).Draw(t, "key"),
		Max:    rapid.IntRange(1, 10).Draw(t, "max"),
		Tokens: rapid.IntRange(0, 70).Draw(t, "tokens"),
	}
	if rapid.Bool().Draw(t, "has deadline") {
		it.Deadline = w.now.Add(time.Duration(rapid.IntRange(-10, 300).Draw(t, "deadline")) * time.Millisecond)
	}
	w.items, w.added = append(w.items, it), append(w.added, w.now)
	w.b.Add(it, w.now)
}

func (w *world) next(t *rapid.T) {
	if n := w.b.Waiting("m1") + w.b.Waiting("m2"); n != w.b.Len() || n != len(w.items)-w.seen {
		t.Fatalf("%d wait by group, %d in all, %d were added and not cut", n, w.b.Len(), len(w.items)-w.seen)
	}
	free := rapid.IntRange(0, 3).Draw(t, "free")
	for range free {
		got, ok := w.b.Next(w.now, func(string) int { return free })
		if !ok {
			w.checkWaits(t)
			return
		}
		w.check(t, got)
		w.running = append(w.running, got)
	}
}

func (w *world) check(t *rapid.T, got batch.Batch[int]) {
	n, tokens := len(got.Items), 0
	if n == 0 || n > w.p.MaxTasks {
		t.Fatalf("%d items in a batch of at most %d", n, w.p.MaxTasks)
	}
	lane := got.Group + "/" + got.Key
	for _, i := range got.Items {
		it := w.items[i]
		if it.Group != got.Group || it.Key != got.Key {
			t.Fatalf("item %d of %s/%s in a batch of %s", i, it.Group, it.Key, lane)
		}
		if n > max(1, it.Max) {
			t.Fatalf("item %d allows %d, the batch has %d", i, it.Max, n)
		}
		order := lane
		if it.Max == 1 || w.p.MaxTasks == 1 {
			order = lane + " alone"
		}
		if prev, ok := w.last[order]; ok && i <= prev {
			t.Fatalf("%s: item %d after %d", order, i, prev)
		}
		w.last[order] = i
		tokens += it.Tokens
		w.seen++
	}
	if w.p.MaxTokens > 0 && n > 1 && tokens > w.p.MaxTokens {
		t.Fatalf("%d tokens in a batch of at most %d", tokens, w.p.MaxTokens)
	}
	if tokens != got.Tokens {
		t.Fatalf("batch says %d tokens, has %d", got.Tokens, tokens)
	}
}

// checkWaits is asked when Next has said that nothing should go although a call
// could start.
func (w *world) checkWaits(t *rapid.T) {
	due, ok := w.b.Due()
	if !ok {
		if w.b.Len() > 0 {
			t.Fatalf("%d wait, a call could start, and nothing is due", w.b.Len())
		}
		return
	}
	if !due.After(w.now) {
		t.Fatalf("nothing goes, and due is %s ago", w.now.Sub(due))
	}
	if wait := due.Sub(w.now); wait > w.p.MaxDelay && len(w.running) == 0 {
		t.Fatalf("due in %s, beyond the ceiling", wait)
	}
}

func (w *world) done(t *rapid.T) {
	if len(w.running) == 0 {
		t.Skip("nothing runs")
	}
	i := rapid.IntRange(0, len(w.running)-1).Draw(t, "which")
	w.b.Done(w.running[i], w.now, rapid.Bool().Draw(t, "ok"))
	w.running = append(w.running[:i], w.running[i+1:]...)
}

func (w *world) pass(t *rapid.T) {
	w.now = w.now.Add(time.Duration(rapid.IntRange(0, 50).Draw(t, "ms")) * time.Millisecond)
}

// finish lets every call end and looks whether everything leaves.
func (w *world) finish() {
	for range 10 * (len(w.items) + 1) {
		for _, r := range w.running {
			w.b.Done(r, w.now, true)
		}
		w.running = nil
		got, ok := w.b.Next(w.now, func(string) int { return 1 })
		if ok {
			w.check(w.t, got)
			w.running = append(w.running, got)
			continue
		}
		due, wait := w.b.Due()
		if !wait {
			break
		}
		w.now = due
	}
	if w.seen != len(w.items) || w.b.Len() != 0 {
		w.t.Fatalf("%d of %d items left, %d say they wait", w.seen, len(w.items), w.b.Len())
	}
}

func TestCurve(t *testing.T) {
	cost := func(n int) time.Duration { return 20*time.Millisecond + time.Duration(n)*time.Millisecond }
	near := func(t *testing.T, got, want time.Duration) {
		t.Helper()
		if diff := (got - want).Abs(); diff > want/10 {
			t.Errorf("%s, want about %s", got, want)
		}
	}
	t.Run("learns base and slope from a few sizes", func(t *testing.T) {
		var c batch.Curve
		for i := range 10 {
			c.Observe(1+i%5*7, cost(1+i%5*7))
		}
		near(t, c.Cost(1), cost(1))
		near(t, c.Cost(32), cost(32))
	})
	t.Run("one hiccup does not bend it", func(t *testing.T) {
		var c batch.Curve
		for i := range 50 {
			c.Observe(1+i%32, cost(1+i%32))
		}
		c.Observe(16, 10*time.Second)
		near(t, c.Cost(16), cost(16))
	})
	t.Run("a lasting change is followed", func(t *testing.T) {
		var c batch.Curve
		for i := range 100 {
			c.Observe(1+i%32, cost(1+i%32))
		}
		for i := range 200 {
			c.Observe(1+i%32, 3*cost(1+i%32))
		}
		near(t, c.Cost(16), 3*cost(16))
	})
	t.Run("calls of one size for ever keep it sane", func(t *testing.T) {
		var c batch.Curve
		for range 100_000 {
			c.Observe(8, cost(8))
		}
		near(t, c.Cost(8), cost(8))
		c.Observe(16, cost(16))
		if got := c.Cost(16); got <= 0 || got > 10*cost(16) {
			t.Errorf("after one call of another size: %s", got)
		}
	})
	t.Run("nothing is believed at first", func(t *testing.T) {
		var c batch.Curve
		c.Observe(1, time.Second)
		if c.Known() {
			t.Error("known after one call")
		}
	})
}

// BenchmarkBatcher is what the batcher adds to each task.
func BenchmarkBatcher(b *testing.B) {
	bt := batch.New[int](batch.Policy{})
	now := start
	for i := 0; b.Loop(); i++ {
		now = now.Add(10 * time.Microsecond)
		bt.Add(batch.Item[int]{Value: i, Group: "m", Key: "k", Max: 32}, now)
		if i%32 == 31 {
			got, ok := bt.Next(now, always(8))
			if ok {
				bt.Done(got, now.Add(time.Millisecond), true)
			}
		}
	}
}
