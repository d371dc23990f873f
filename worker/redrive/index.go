package redrive

import (
	"slices"
	"sync"
	"time"

	"github.com/penstock/penstock/schema/task"
)

// index holds the summaries of the newest letters, at most its limit, and
// which of them were redriven. It is safe for concurrent use.
//
// Letters of different partitions arrive out of the order of their deaths, so
// the list is sorted when somebody looks, not on every arrival.
type index struct {
	mu       sync.Mutex
	limit    int
	letters  []*Letter // oldest first once sorted
	unsorted bool
	byDeath  map[identity]*Letter
	byRef    map[Ref]*Letter
	byTask   map[task.ID][]*Letter
	marks    map[identity]mark // by death; may name letters not seen yet
	order    []identity        // of marks, oldest first
	evicted  int64
}

func newIndex(limit int) *index {
	return &index{
		limit: limit, byDeath: map[identity]*Letter{}, byRef: map[Ref]*Letter{},
		byTask: map[task.ID][]*Letter{}, marks: map[identity]mark{},
	}
}

// add takes in a letter and returns how many older ones fell out for it.
func (x *index) add(l *Letter) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	if first, twice := x.byDeath[l.identity()]; twice {
		if first.ID != l.ID { // and not the same record read again
			first.Duplicates++
		}
		return 0
	}
	x.marks[l.identity()].put(l)
	if n := len(x.letters); n > 0 && older(x.letters[n-1], l) > 0 {
		x.unsorted = true
	}
	x.letters = append(x.letters, l)
	x.byDeath[l.identity()], x.byRef[l.ID] = l, l
	if l.TaskID != "" {
		x.byTask[l.TaskID] = append(x.byTask[l.TaskID], l)
	}
	return x.evict()
}

// evict drops the oldest letters once the list is a tenth over its limit, so
// that sorting is rare.
func (x *index) evict() int {
	if len(x.letters) <= x.limit+x.limit/10 {
		return 0
	}
	x.sort()
	n := len(x.letters) - x.limit
	for _, l := range x.letters[:n] {
		delete(x.byDeath, l.identity())
		delete(x.byRef, l.ID)
		x.forgetTask(l)
	}
	x.letters = slices.Delete(x.letters, 0, n)
	x.evicted += int64(n)
	return n
}

func (x *index) forgetTask(l *Letter) {
	left := slices.DeleteFunc(x.byTask[l.TaskID], func(o *Letter) bool { return o == l })
	if len(left) == 0 {
		delete(x.byTask, l.TaskID)
		return
	}
	x.byTask[l.TaskID] = left
}

func (x *index) sort() {
	if x.unsorted {
		slices.SortFunc(x.letters, older)
		x.unsorted = false
	}
}

// mark is what the control topic says about a death. The zero mark says
// nothing.
type mark struct {
	redriven bool
	job      string // that did it; empty: an unknown one
	discard  *Discard
}

// over returns m as a later mark n leaves it: what was redriven is no longer
// there to be discarded.
func (m mark) over(n mark) mark {
	if m.redriven && n.job == "" {
		return m
	}
	return n
}

func (m mark) put(l *Letter) {
	l.State, l.RedrivenBy, l.Discarded = LetterDead, m.job, m.discard
	switch {
	case m.redriven:
		l.State = LetterRedriven
	case m.discard != nil:
		l.State = LetterDiscarded
	}
}

// mark notes what became of a death, whether or not its letter was read yet:
// control and dead letters are two topics without a common order. The notes
// are bounded too; a forgotten one costs a skip, never a second redrive.
func (x *index) mark(death identity, m mark) {
	x.mu.Lock()
	defer x.mu.Unlock()
	before, known := x.marks[death]
	if !known {
		x.order = append(x.order, death)
	}
	m = before.over(m)
	x.marks[death] = m
	if len(x.order) > 2*x.limit {
		for _, old := range x.order[:x.limit] {
			delete(x.marks, old)
		}
		x.order = slices.Clone(x.order[x.limit:])
	}
	if l, ok := x.byDeath[death]; ok {
		m.put(l)
	}
}

// cursor is a place in the list: the letter it names was the last one shown.
type cursor struct {
	at time.Time
	id Ref
}

// page is one page of a list.
type page struct {
	letters []Letter
	more    bool
	total   int // that match, on all pages
}

// list returns the letters that match and lie after the cursor, newest first.
func (x *index) list(f *Filter, after *cursor, limit int) page {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.sort()
	var p page
	for _, l := range slices.Backward(x.letters) {
		if !f.matches(l) {
			continue
		}
		p.total++
		if after != nil && older(l, &Letter{DeadAt: after.at, ID: after.id}) >= 0 {
			continue
		}
		if len(p.letters) == limit {
			p.more = true
			continue
		}
		p.letters = append(p.letters, *l)
	}
	return p
}

// all returns every letter that matches, oldest first: the order in which a
// job works, so that what waits longest is served first. Limit 0 is none.
func (x *index) all(f *Filter, limit int) []Letter {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.sort()
	var out []Letter
	for _, l := range x.letters {
		if limit > 0 && len(out) == limit {
			break
		}
		if f.matches(l) {
			out = append(out, *l)
		}
	}
	return out
}

// letter returns one letter by its place.
func (x *index) letter(r Ref) (Letter, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if l, ok := x.byRef[r]; ok {
		return *l, true
	}
	return Letter{}, false
}

// ofTask returns the letters of a task, newest generation first.
func (x *index) ofTask(id task.ID) []Letter {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out []Letter
	for _, l := range x.byTask[id] {
		out = append(out, *l)
	}
	slices.SortFunc(out, func(a, b Letter) int {
		if a.Generation != b.Generation {
			return int(b.Generation) - int(a.Generation)
		}
		return older(&b, &a)
	})
	return out
}

// size returns how many letters are held, and how many fell out.
func (x *index) size() (held int, evicted int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.letters), x.evicted
}
