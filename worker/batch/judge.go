package batch

import "time"

// verdict is what should happen to a line now.
type verdict struct {
	n      int
	reason Reason
	wait   bool
	until  time.Time
}

// judge decides about a line whose call could start.
func (b *Batcher[T]) judge(g *group[T], l *line[T], now time.Time) verdict {
	n, bound := b.fit(l)
	if bound != "" {
		return verdict{n: n, reason: bound}
	}
	if b.drains {
		return verdict{n: n, reason: Drain}
	}
	curve := g.curveOf(l)
	hurry := b.hurry(l, n, curve)
	if !hurry.IsZero() && !now.Before(hurry) {
		return verdict{n: n, reason: Deadline}
	}
	until, worth := b.company(l, n, curve, now)
	if !worth {
		return verdict{n: n, reason: Idle}
	}
	if !now.Before(until) {
		return verdict{n: n, reason: l.waited()}
	}
	l.held = true
	if !hurry.IsZero() && hurry.Before(until) {
		until = hurry
	}
	return verdict{wait: true, until: until}
}

// waited is why a line goes that is past the ceiling: it was kept back until
// then, or no call could start before.
func (l *line[T]) waited() Reason {
	if l.held {
		return Delay
	}
	return Idle
}

func (g *group[T]) curveOf(l *line[T]) *Curve {
	if l.curve.Known() {
		return &l.curve
	}
	return &g.curve
}

// fit is how many of a line's first items may share a call, and what bounds
// them: nothing, if all of them fit and there is room for more.
func (b *Batcher[T]) fit(l *line[T]) (n int, bound Reason) {
	most, tokens := b.p.MaxTasks, 0
	for _, e := range l.items {
		if n >= min(most, e.Max) {
			return n, Full
		}
		if b.p.MaxTokens > 0 && n > 0 && tokens+e.Tokens > b.p.MaxTokens {
			return n, Tokens
		}
		most = min(most, e.Max)
		tokens += e.Tokens
		n++
	}
	switch {
	case n >= most:
		return n, Full
	case b.p.MaxTokens > 0 && tokens >= b.p.MaxTokens:
		return n, Tokens
	}
	return n, ""
}

// hurry is when a line must leave for the tightest of its deadlines; zero if it
// has none.
func (b *Batcher[T]) hurry(l *line[T], n int, curve *Curve) time.Time {
	var tightest time.Time
	for _, e := range l.items[:n] {
		if !e.Deadline.IsZero() && (tightest.IsZero() || e.Deadline.Before(tightest)) {
			tightest = e.Deadline
		}
	}
	if tightest.IsZero() {
		return tightest
	}
	return tightest.Add(-curve.Cost(n) - b.p.Margin)
}

// company says whether it is worth waiting for one more item, and until when.
// One step ahead is enough: the question is asked again when it is here.
func (b *Batcher[T]) company(l *line[T], n int, curve *Curve, now time.Time) (until time.Time, worth bool) {
	if l.held { // decided already, and nobody came since
		return l.until, true
	}
	if !curve.Known() || b.p.MaxDelay < 0 || l.gaps.n < enoughGaps || curve.Base() <= float64(n)*curve.Item() {
		return time.Time{}, false
	}
	wait := patience(l.gaps.left(now.Sub(l.gaps.last)), n, curve.Base(), curve.Item())
	if wait <= 0 {
		return time.Time{}, false
	}
	l.until = now.Add(wait)
	if ceiling := l.items[0].at.Add(b.p.MaxDelay); ceiling.Before(l.until) {
		l.until = ceiling
	}
	return l.until, true
}
