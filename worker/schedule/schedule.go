// Package schedule chooses which waiting task runs next. It is pure: one
// goroutine owns a Queue, and nothing here knows of time, Kafka or backends.
//
//	model    the caller asks for the next task of one model, when it has room
//	class    by weight: interactive 8, standard 4, bulk 1; none ever starves
//	tenant   inside a class by deficit round robin over the cost of tasks
//	deadline inside a tenant the earliest first, then the earlier pushed
//	key      tasks of one ordering key one after another, in the order pushed
package schedule

import (
	"container/heap"
	"slices"

	"github.com/penstock/penstock/schema/task"
)

// Item is one waiting task.
type Item[T any] struct {
	Model    string
	Class    task.Class
	Tenant   string
	Key      string // ordering key; empty: none
	Deadline int64  // any unit; smaller is sooner
	Cost     int    // share of a tenant's turn, in any unit; at least 1 is counted
	Value    T
}

// Queue holds waiting items. The zero value is not ready; use New.
type Queue[T any] struct {
	models map[string]*shard[T] // those with runnable items
	order  []string             // their names, in turn
	keys   map[keyOf]*chain[T]  // over all models
	seq    uint64
	size   int
}

// shard is the lanes of one model, by class.
type shard[T any] [3]*lane[T]

// quantum is what a tenant gains per round. A dear task saves up for some
// rounds, during which others go first.
const quantum = 1024

// lane is one class: a smooth weighted round robin chooses among them.
type lane[T any] struct {
	weight  int
	credit  int
	tenants map[string]*tenant[T]
	ring    []*tenant[T] // those with runnable items, in turn
	at      int          // whose turn it is
	size    int          // runnable items
}

type tenant[T any] struct {
	name    string
	deficit int
	fresh   bool // its turn has just begun: it has not been given its quantum
	heap    deadlines[T]
}

type keyOf struct {
	class       task.Class
	tenant, key string
}

// chain is one ordering key: busy while an item of it is out, the others wait.
type chain[T any] struct {
	busy bool
	wait []entry[T]
}

type entry[T any] struct {
	Item[T]
	seq uint64
}

// New returns an empty queue.
func New[T any]() *Queue[T] {
	return &Queue[T]{models: map[string]*shard[T]{}, keys: map[keyOf]*chain[T]{}}
}

func newShard[T any]() *shard[T] {
	var s shard[T]
	for i, weight := range [...]int{8, 4, 1} {
		s[i] = &lane[T]{weight: weight, tenants: map[string]*tenant[T]{}}
	}
	return &s
}

// laneOf is a class's place in a shard. A class nobody knows goes with bulk.
func laneOf(c task.Class) int {
	switch c {
	case task.Interactive:
		return 0
	case task.Standard:
		return 1
	default:
		return 2
	}
}

// Len returns how many items wait, runnable or behind their key.
func (q *Queue[T]) Len() int { return q.size }

// Push adds an item. While another of its ordering key is waiting or out, it
// waits behind that.
func (q *Queue[T]) Push(it Item[T]) {
	q.size++
	q.seq++
	e := entry[T]{it, q.seq}
	if it.Key == "" {
		q.add(e)
		return
	}
	c := q.chain(it)
	if c.busy {
		c.wait = append(c.wait, e)
		return
	}
	c.busy = true
	q.add(e)
}

// Return puts back an item that Pop gave out and that shall be given out
// again. It still holds its ordering key.
func (q *Queue[T]) Return(it Item[T]) {
	q.size++
	q.seq++
	q.add(entry[T]{it, q.seq})
}

// Models returns the models that have something to run, each time beginning
// with the next one, so that a caller who serves them in this order is fair.
func (q *Queue[T]) Models() []string {
	if len(q.order) > 1 {
		q.order = append(q.order[1:], q.order[0])
	}
	return slices.Clone(q.order)
}

// Pop gives out a model's next item. If it has an ordering key, the key is held
// until Done.
func (q *Queue[T]) Pop(model string) (Item[T], bool) {
	s, ok := q.models[model]
	if !ok {
		return Item[T]{}, false
	}
	e := s.choose().pop()
	q.size--
	q.retire(model)
	return e.Item, true
}

// Done frees the ordering key of an item that Pop gave out: the next of that
// key may run. Without a key it does nothing.
func (q *Queue[T]) Done(it Item[T]) {
	k := keyOf{it.Class, it.Tenant, it.Key}
	c, ok := q.keys[k]
	if it.Key == "" || !ok {
		return
	}
	if len(c.wait) == 0 {
		delete(q.keys, k)
		return
	}
	next := c.wait[0]
	c.wait = c.wait[1:]
	q.add(next)
}

func (q *Queue[T]) add(e entry[T]) {
	s, ok := q.models[e.Model]
	if !ok {
		s = newShard[T]()
		q.models[e.Model] = s
		q.order = append(q.order, e.Model)
	}
	s[laneOf(e.Class)].add(e)
}

// retire forgets a model with nothing to run.
func (q *Queue[T]) retire(model string) {
	for _, l := range q.models[model] {
		if l.size > 0 {
			return
		}
	}
	delete(q.models, model)
	q.order = slices.DeleteFunc(q.order, func(m string) bool { return m == model })
}

func (q *Queue[T]) chain(it Item[T]) *chain[T] {
	k := keyOf{it.Class, it.Tenant, it.Key}
	c, ok := q.keys[k]
	if !ok {
		c = &chain[T]{}
		q.keys[k] = c
	}
	return c
}

// choose is smooth weighted round robin over the classes with runnable items:
// each gains its weight, the richest goes and pays the sum. Over any 13 choices
// with all three waiting they get 8, 4 and 1.
func (s *shard[T]) choose() *lane[T] {
	var best *lane[T]
	total := 0
	for _, l := range s {
		if l.size == 0 {
			l.credit = 0 // an absent class saves nothing up
			continue
		}
		l.credit += l.weight
		total += l.weight
		if best == nil || l.credit > best.credit {
			best = l
		}
	}
	best.credit -= total // a shard that is kept has something to run
	return best
}

func (l *lane[T]) add(e entry[T]) {
	t, ok := l.tenants[e.Tenant]
	if !ok {
		t = &tenant[T]{name: e.Tenant, fresh: true}
		l.tenants[e.Tenant] = t
		l.ring = append(l.ring, t)
	}
	heap.Push(&t.heap, e)
	l.size++
}

// pop is deficit round robin: on its turn a tenant gains one quantum and runs
// items while it can pay for them; then it is the next one's turn.
func (l *lane[T]) pop() entry[T] {
	for {
		t := l.ring[l.at]
		if t.fresh {
			t.deficit += quantum
			t.fresh = false
		}
		if cost := max(1, t.heap[0].Cost); cost <= t.deficit {
			t.deficit -= cost
			e := heap.Pop(&t.heap).(entry[T])
			l.size--
			l.retire()
			return e
		}
		t.fresh = true
		l.at = (l.at + 1) % len(l.ring)
	}
}

// retire takes the tenant whose turn it is out of the ring once it has nothing
// left; what it had saved is gone with it.
func (l *lane[T]) retire() {
	t := l.ring[l.at]
	if len(t.heap) > 0 {
		return
	}
	delete(l.tenants, t.name)
	l.ring = append(l.ring[:l.at], l.ring[l.at+1:]...)
	if l.at >= len(l.ring) {
		l.at = 0
	}
}

// deadlines is a heap: the earliest deadline first, then the earlier pushed.
type deadlines[T any] []entry[T]

func (d deadlines[T]) Len() int      { return len(d) }
func (d deadlines[T]) Swap(i, j int) { d[i], d[j] = d[j], d[i] }
func (d *deadlines[T]) Push(x any)   { *d = append(*d, x.(entry[T])) }

func (d deadlines[T]) Less(i, j int) bool {
	if d[i].Deadline != d[j].Deadline {
		return d[i].Deadline < d[j].Deadline
	}
	return d[i].seq < d[j].seq
}

func (d *deadlines[T]) Pop() any {
	old := *d
	last := old[len(old)-1]
	old[len(old)-1] = entry[T]{}
	*d = old[:len(old)-1]
	return last
}
