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

// company says whether it is worth waiting for one more item, and until when at
// most.
//
// With a mean gap g between arrivals, the next item saves base − g by sharing
// this call instead of waiting for it and paying for its own; each of the n
// that wait now loses g and the item's own cost. One step ahead is enough: the
// question is asked again when the item is here.
func (b *Batcher[T]) company(l *line[T], n int, curve *Curve, now time.Time) (until time.Time, worth bool) {
	perSecond := l.rate.now(l.rate.at)
	if !curve.Known() || b.p.MaxDelay < 0 || perSecond <= 0 {
		return time.Time{}, false
	}
	gap := 1 / perSecond
	if curve.Base()-gap <= float64(n)*(gap+curve.Item()) {
		return time.Time{}, false
	}
	// Arrivals that do not come are not waited for: twice the gap is patience
	// enough, and the ceiling holds whatever was learned.
	until = l.items[0].at.Add(b.p.MaxDelay)
	if patience := l.rate.at.Add(seconds(2 * gap)); patience.Before(until) {
		until = patience
	}
	return until, true
}
