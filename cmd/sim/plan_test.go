package sim_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/penstock/penstock/schema/task"
)

// What a prompt's first word says of its task.
const (
	sound    = "sound"
	poison   = "poison"   // kills every batch it is in, until the engine is cured
	rejected = "rejected" // refused for good
	flaky    = "flaky"    // fails twice
	cut      = "cut"      // a stream that breaks off twice
	hangs    = "hangs"    // never answers the first time
)

// length of the part of a run in which faults strike.
const length = 60 * time.Second

// order is one task of the plan.
type order struct {
	at       time.Duration
	prompt   string
	class    task.Class
	stream   bool
	embed    bool
	key      string        // idempotency key; empty: none
	again    time.Duration // after this the same is submitted once more; 0: never
	timeout  string        // deadline; empty: the default
	cancel   time.Duration // after the answer; 0: never
	watch    bool          // over an event stream, from the beginning on
	polls    []time.Duration
	ordering string
	session  string   // whose memory it has; empty: none
	hook     string   // what the receiver of its webhook does; empty: it has none
	events   []string // that the webhook is for; none: all
}

// strike is one fault of the plan.
type strike struct {
	at   time.Duration
	what string
	who  int // instance, where the fault has one
	last time.Duration
	pick int // free choice, for faults that have more to choose
}

func (s strike) String() string {
	return fmt.Sprintf("%6s %s instance %d, %s, variant %d", s.at, s.what, s.who, s.last, s.pick)
}

// plan is all that a seed decides.
type plan struct {
	orders  []order
	strikes []strike
}

func newPlan(seed uint64, tasks int) plan {
	r := rand.New(rand.NewPCG(seed, 1))
	var p plan
	for i := range tasks {
		p.orders = append(p.orders, newOrder(r, i))
	}
	giveHooks(seed, p.orders)
	names := make([]string, 0, len(faults))
	for name := range faults {
		names = append(names, name)
	}
	slices.Sort(names)
	for range 6 + r.IntN(8) {
		p.strikes = append(p.strikes, strike{
			at:   between(r, time.Second, length-10*time.Second),
			what: names[r.IntN(len(names))], who: r.IntN(8), last: between(r, time.Second, 15*time.Second), pick: r.IntN(1 << 16),
		})
	}
	slices.SortFunc(p.strikes, func(a, b strike) int { return int(a.at - b.at) })
	return p
}

func newOrder(r *rand.Rand, i int) order {
	o := order{at: between(r, 0, length*3/4), class: task.Classes()[r.IntN(3)], watch: r.IntN(4) == 0}
	kind := sound
	switch n := r.IntN(100); {
	case n < 5:
		kind = poison
	case n < 8:
		kind = rejected
	case n < 16:
		kind = flaky
	case n < 19:
		kind, o.stream, o.watch = cut, true, true
	case n < 21:
		kind = hangs
	case n < 45:
		o.stream = true
	case n < 60:
		o.embed = true
	}
	o.prompt = fmt.Sprintf("%s %d", kind, i)
	if r.IntN(2) == 0 {
		o.key = fmt.Sprintf("key-%d", i)
		if r.IntN(3) == 0 {
			o.again = between(r, time.Millisecond, 20*time.Second)
		}
	}
	switch n := r.IntN(100); {
	case n < 8:
		o.timeout = between(r, 2*time.Second, 20*time.Second).Round(time.Second).String()
	case n < 16:
		o.cancel = between(r, 0, 5*time.Second)
	case n < 22:
		o.ordering = fmt.Sprintf("session-%d", r.IntN(3))
	case n < 34 && !o.embed:
		o.session, o.class = fmt.Sprintf("talk-%d", r.IntN(3)), task.Standard
	}
	for range 3 {
		o.polls = append(o.polls, between(r, 0, 40*time.Second))
	}
	return o
}

// between draws a time, in whole milliseconds.
func between(r *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(r.Int64N(int64((to-from)/time.Millisecond)))*time.Millisecond
}
