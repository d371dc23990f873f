package batch

import (
	"cmp"
	"slices"
	"time"
)

// Batcher holds the tasks that wait for a call. The loop that owns it calls
//
//	Add    when the scheduler hands out a task
//	Next   until it returns false, after each Add, Done, freed slot and at Due
//	Done   when a batch's call has ended
type Batcher[T any] struct {
	p      Policy
	groups map[string]*group[T]
	due    time.Time
	waits  int
	drains bool
	turn   int // moves on with each batch, so that no group is always first
	names  []string
}

// group is the tasks of one model.
type group[T any] struct {
	name  string
	solo  []entry[T] // each goes alone
	lines map[string]*line[T]
	lined int // items in lines
	side  sideBySide
	curve Curve // over all keys; used until a key has its own
}

// line is the waiting tasks of one key.
type line[T any] struct {
	key   string
	items []entry[T]
	gaps  gaps
	curve Curve
	used  time.Time
	held  bool      // it is kept back for company
	until time.Time // at most
}

type entry[T any] struct {
	Item[T]
	at time.Time
}

const (
	// maxLines bounds the keys of a group that are remembered without tasks.
	maxLines = 256
	// maxGroups bounds the groups that are.
	maxGroups = 256
)

// New returns an empty batcher.
func New[T any](p Policy) *Batcher[T] {
	return &Batcher[T]{p: p.withDefaults(), groups: map[string]*group[T]{}}
}

// Len is how many tasks wait.
func (b *Batcher[T]) Len() int { return b.waits }

// Waiting is how many tasks of a group wait. A caller that adds no more than a
// batch or two ahead leaves the choice of the next task to its scheduler.
func (b *Batcher[T]) Waiting(name string) int {
	g, ok := b.groups[name]
	if !ok {
		return 0
	}
	return len(g.solo) + g.lined
}

// Add takes a task in.
func (b *Batcher[T]) Add(it Item[T], now time.Time) {
	g := b.group(it.Group)
	b.waits++
	e := entry[T]{it, now}
	if it.Max <= 1 || b.p.MaxTasks == 1 {
		g.solo = append(g.solo, e)
		return
	}
	l := g.line(it.Key, now)
	l.gaps.arrive(now)
	l.held = false
	l.items = append(l.items, e)
	g.lined++
}

func (b *Batcher[T]) group(name string) *group[T] {
	g, ok := b.groups[name]
	if !ok {
		b.forgetIdle()
		g = &group[T]{name: name, lines: map[string]*line[T]{}}
		b.groups[name] = g
		b.names = append(b.names, name)
	}
	return g
}

// forgetIdle makes room among the groups: those that have neither tasks nor
// calls go, with what was learned of them.
func (b *Batcher[T]) forgetIdle() {
	if len(b.groups) < maxGroups {
		return
	}
	b.names = slices.DeleteFunc(b.names, func(name string) bool {
		g := b.groups[name]
		idle := len(g.solo)+g.lined == 0 && len(g.side.runs) == 0
		if idle {
			delete(b.groups, name)
		}
		return idle
	})
}

func (g *group[T]) line(key string, now time.Time) *line[T] {
	l, ok := g.lines[key]
	if !ok {
		g.forgetOldest()
		l = &line[T]{key: key}
		g.lines[key] = l
	}
	l.used = now
	return l
}

// forgetOldest makes room among the keys: one of those without tasks goes.
func (g *group[T]) forgetOldest() {
	if len(g.lines) < maxLines {
		return
	}
	var oldest *line[T]
	for _, l := range g.lines {
		if len(l.items) == 0 && (oldest == nil || l.used.Before(oldest.used)) {
			oldest = l
		}
	}
	if oldest != nil {
		delete(g.lines, oldest.key)
	}
}

// Next returns the batch that should go now. Free says how many more calls of a
// group could start; it is asked anew each time, so a caller that starts what
// it gets may simply call again. False: nothing should go before Due, unless
// something happens.
func (b *Batcher[T]) Next(now time.Time, free func(group string) int) (Batch[T], bool) {
	b.due = time.Time{}
	for i := range b.names {
		g := b.groups[b.names[(b.turn+i)%len(b.names)]]
		if len(g.solo)+g.lined == 0 || free(g.name) <= 0 {
			continue
		}
		if batch, ok := b.from(g, now); ok {
			b.turn += i + 1
			return batch, true
		}
	}
	return Batch[T]{}, false
}

// Due is when Next should be called again if nothing happens before; false:
// nothing waits for a time.
func (b *Batcher[T]) Due() (time.Time, bool) { return b.due, !b.due.IsZero() }

// from returns the most urgent batch of a group. The longest waiting goes
// first, and a deadline that cannot wait before that.
func (b *Batcher[T]) from(g *group[T], now time.Time) (Batch[T], bool) {
	best, verdict := (*line[T])(nil), verdict{}
	if n, next := g.side.free(now); n > 0 || b.drains {
		best, verdict = b.choose(g, now)
	} else if g.lined > 0 {
		b.look(next)
	}
	if len(g.solo) > 0 && (best == nil || verdict.reason != Deadline && g.solo[0].at.Before(best.items[0].at)) {
		return b.alone(g, now), true
	}
	if best == nil {
		return Batch[T]{}, false
	}
	return b.cut(g, best, verdict, now), true
}

// look makes sure that Due is at most at.
func (b *Batcher[T]) look(at time.Time) {
	if b.due.IsZero() || at.Before(b.due) {
		b.due = at
	}
}

func (b *Batcher[T]) choose(g *group[T], now time.Time) (best *line[T], chosen verdict) {
	for _, l := range g.lines {
		if len(l.items) == 0 {
			continue
		}
		v := b.judge(g, l, now)
		if v.wait {
			b.look(v.until)
			continue
		}
		if best == nil || before(l, v, best, chosen) {
			best, chosen = l, v
		}
	}
	return best, chosen
}

func before[T any](l *line[T], v verdict, than *line[T], w verdict) bool {
	if urgent := v.reason == Deadline; urgent != (w.reason == Deadline) {
		return urgent
	}
	return cmp.Or(l.items[0].at.Compare(than.items[0].at), cmp.Compare(l.key, than.key)) < 0
}

func (b *Batcher[T]) alone(g *group[T], now time.Time) Batch[T] {
	e := g.solo[0]
	g.solo = pop(g.solo, 1)
	b.waits--
	reason := Full
	if b.drains {
		reason = Drain
	}
	return Batch[T]{
		Group: g.name, Key: e.Key, Items: []T{e.Value}, Tokens: e.Tokens,
		Reason: reason, Waited: now.Sub(e.at), solo: true,
	}
}

func (b *Batcher[T]) cut(g *group[T], l *line[T], v verdict, now time.Time) Batch[T] {
	out := Batch[T]{Group: g.name, Key: l.key, Reason: v.reason, Waited: now.Sub(l.items[0].at), run: g.side.start(now, g.curveOf(l).Cost(v.n), v.reason == Full)}
	out.Items = make([]T, v.n)
	for i := range out.Items {
		out.Items[i] = l.items[i].Value
		out.Tokens += l.items[i].Tokens
	}
	l.items = pop(l.items, v.n)
	l.used, l.held = now, false
	b.waits -= v.n
	g.lined -= v.n
	return out
}

// pop drops the first n, and lets go of what they refer to.
func pop[T any](s []entry[T], n int) []entry[T] {
	clear(s[:n])
	if s = s[n:]; len(s) == 0 {
		return nil
	}
	return s
}

// Done learns from a batch whose call has ended. OK is false when its time says
// nothing of the engine: it failed, was cancelled, or was cut in parts.
func (b *Batcher[T]) Done(batch Batch[T], now time.Time, ok bool) {
	g := b.groups[batch.Group]
	if batch.solo || g == nil {
		return
	}
	others, ran := g.side.end(now, batch.run)
	switch {
	case !ran:
	case !ok:
		g.side.silent()
	default:
		g.learn(batch.Key, len(batch.Items), now.Sub(batch.run.began), others, batch.run)
	}
}

func (g *group[T]) learn(key string, n int, took time.Duration, others float64, r run) {
	l, known := g.lines[key]
	if others < aloneBelow {
		g.side.alone()
		g.curve.Observe(n, took)
		if known {
			l.curve.Observe(n, took)
		}
	}
	curve := &g.curve
	if known {
		curve = g.curveOf(l)
	}
	cost := curve.Cost(n)
	if !curve.Covers(n) || cost <= 0 { // nothing to compare it with
		g.side.calibrate = others >= aloneBelow
		return
	}
	g.side.learn(took.Seconds()/cost.Seconds(), curve.noise(n), others, r)
}

// Remove takes out the waiting tasks that match, and returns how many went.
func (b *Batcher[T]) Remove(match func(T) bool) int {
	gone := 0
	drop := func(s []entry[T]) []entry[T] {
		kept := slices.DeleteFunc(s, func(e entry[T]) bool { return match(e.Value) })
		gone += len(s) - len(kept)
		return kept
	}
	for _, g := range b.groups {
		g.solo = drop(g.solo)
		for _, l := range g.lines {
			before := len(l.items)
			l.items = drop(l.items)
			g.lined -= before - len(l.items)
		}
	}
	b.waits -= gone
	return gone
}

// Drain makes Next hold nothing back from now on: every batch goes as soon as a
// call can start.
func (b *Batcher[T]) Drain() { b.drains = true }

// Clear takes every waiting task out, in no particular order between keys.
func (b *Batcher[T]) Clear() []T {
	var out []T
	for _, g := range b.groups {
		for _, e := range g.solo {
			out = append(out, e.Value)
		}
		g.solo = nil
		for _, l := range g.lines {
			for _, e := range l.items {
				out = append(out, e.Value)
			}
			l.items = nil
		}
		g.lined = 0
	}
	b.waits = 0
	return out
}
