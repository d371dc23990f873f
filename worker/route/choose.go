package route

import (
	"math/rand/v2"
	"slices"
	"time"
)

// candidates are the members that could run a call now. Excluded ones are only
// among them when there is no other that could, busy or not.
func (r *Router) candidates(model string, exclude []string, now time.Time) []*member {
	var out, last []*member
	others := false // usable, if busy
	for _, m := range r.members {
		if !m.serves(model) {
			continue
		}
		excluded := slices.Contains(exclude, m.Name)
		if !excluded && r.blocked(m, model, now).cause == nil {
			others = true
		}
		if r.room(m, model, now) == 0 {
			continue
		}
		if excluded {
			last = append(last, m)
		} else {
			out = append(out, m)
		}
	}
	if !others {
		return last
	}
	return out
}

// choose returns the index of the one to take, by the router's strategy. There
// is at least one.
func (r *Router) choose(from []*member) int {
	if len(from) == 1 {
		return 0
	}
	switch r.p.Strategy {
	case RoundRobin:
		return r.inTurn(from)
	case Random:
		return rand.IntN(len(from))
	case ResponseTime:
		return byResponse(from)
	default:
		return lessBusy(from)
	}
}

// inTurn takes the first candidate from the turn on, in the order of all
// members: one that was busy for a while gets no more than its share after.
func (r *Router) inTurn(from []*member) int {
	for step := range r.members {
		at := (r.turn + step) % len(r.members)
		if i := slices.Index(from, r.members[at]); i >= 0 {
			r.turn = at + 1
			return i
		}
	}
	return 0
}

// lessBusy draws two and takes the one with the smaller part of its places in
// use: nearly as good as the least of all, and no herd runs to one backend.
func lessBusy(from []*member) int {
	a := rand.IntN(len(from))
	b := rand.IntN(len(from) - 1)
	if b >= a {
		b++
	}
	if from[b].inFlight*from[a].Concurrency < from[a].inFlight*from[b].Concurrency {
		return b
	}
	return a
}

// byResponse draws one, each by the inverse of its response time. One that has
// not answered yet counts like the fastest, so that it is tried.
func byResponse(from []*member) int {
	fastest := 0.0
	for _, m := range from {
		if m.seconds > 0 && (fastest == 0 || m.seconds < fastest) {
			fastest = m.seconds
		}
	}
	weights, sum := make([]float64, len(from)), 0.0
	for i, m := range from {
		weights[i] = 1
		if m.seconds > 0 {
			weights[i] = fastest / m.seconds
		}
		sum += weights[i]
	}
	at := rand.Float64() * sum
	for i, w := range weights {
		if at -= w; at < 0 {
			return i
		}
	}
	return len(from) - 1
}
