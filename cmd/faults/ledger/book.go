package ledger

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/penstock/penstock/schema/api"
	"github.com/penstock/penstock/schema/task"
)

// Answer is what the caller of a submit knows in the end.
type Answer string

// Answers. Refused is certain: no such task exists. Unknown is not: the task
// may have been accepted although its caller was never told.
const (
	Accepted Answer = "accepted"
	Refused  Answer = "refused"
	Unknown  Answer = "unknown"
)

// Entry is one submit and everything that was seen of its task.
type Entry struct {
	Job
	Answer Answer
	ID     task.ID   // of an accepted task
	Asked  time.Time // first sent
	Acked  time.Time // the 202
	Tries  int       // requests sent
	Last   string    // the last answer that was not a 202
}

// end is one terminal as somebody was shown it.
type end struct {
	Generation uint8
	Status     task.Status
	Digest     string // of the output or the error's code
}

// endOf is what of a task's view must never change.
func endOf(v api.Task) end {
	e := end{Generation: v.Generation, Status: v.Status}
	switch {
	case v.Output != nil:
		e.Digest = v.Output.Text + "\x00" + string(v.Output.Choices) + "\x00" + string(v.Output.Embeddings)
	case v.Error != nil:
		e.Digest = string(v.Error.Code)
	}
	return e
}

// sight is the first time that a terminal was seen, and by whom.
type sight struct {
	end
	By string
	At time.Time
}

// Book is the account of a run: every submit, and every terminal that anybody
// was shown. It is safe for concurrent use.
type Book struct {
	mu      sync.Mutex
	entries map[string]*Entry // by idempotency key
	byID    map[task.ID]*Entry
	order   []task.ID // accepted, in the order of their 202
	seen    map[task.ID]map[uint8]sight
	streams map[task.ID]*streamLog
	broken  []Finding
	polls   PollCounts
}

// PollCounts are the answers that pollers got.
type PollCounts struct {
	Polls, Unavailable int // 200s, and 503s or no answer at all
	Forgotten          int // 200s that told no terminal after one had been seen
}

// Finding is one thing that must not be.
type Finding struct {
	Invariant string // "I1" …
	Task      task.ID
	What      string
}

// NewBook returns an empty book.
func NewBook() *Book {
	return &Book{
		entries: map[string]*Entry{}, byID: map[task.ID]*Entry{}, seen: map[task.ID]map[uint8]sight{},
		streams: map[task.ID]*streamLog{},
	}
}

// maxFindings bounds what is kept of a run in which everything goes wrong.
const maxFindings = 10_000

// find notes a broken invariant; the caller holds the lock.
func (b *Book) find(invariant string, id task.ID, what string) {
	if len(b.broken) < maxFindings {
		b.broken = append(b.broken, Finding{invariant, id, what})
	}
}

// asked notes that a submit is about to be sent.
func (b *Book) asked(j Job) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[j.Key]
	if e == nil {
		e = &Entry{Job: j, Answer: Unknown, Asked: time.Now()}
		b.entries[j.Key] = e
	}
	e.Tries++
}

// accepted notes a 202. Two of one key must name one task.
func (b *Book) accepted(j Job, id task.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[j.Key]
	if e.Answer == Accepted {
		if e.ID != id {
			b.find("I2", id, "one idempotency key was answered with two tasks, the other is "+string(e.ID))
		}
		return
	}
	e.Answer, e.ID, e.Acked = Accepted, id, time.Now()
	b.byID[id] = e
	b.order = append(b.order, id)
}

// answered notes an answer that is no 202. A refusal after an answer that is
// not known settles nothing: the task may exist since the first.
func (b *Book) answered(j Job, refused bool, why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[j.Key]
	e.Last = why
	if refused && e.Tries == 1 && e.Answer == Unknown {
		e.Answer = Refused
	}
}

// saw notes what a poll that began at some time was shown. A terminal must
// never change.
func (b *Book) saw(by string, v api.Task, began time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.polls.Polls++
	if !v.Status.Terminal() {
		was, known := b.seen[v.TaskID][v.Generation]
		if known && was.At.Before(began) {
			b.polls.Forgotten++
		}
		return
	}
	b.ended(by, v.TaskID, endOf(v))
}

// ended notes a terminal; the caller holds the lock.
func (b *Book) ended(by string, id task.ID, e end) {
	ends := b.seen[id]
	if ends == nil {
		ends = map[uint8]sight{}
		b.seen[id] = ends
	}
	was, known := ends[e.Generation]
	switch {
	case !known:
		ends[e.Generation] = sight{end: e, By: by, At: time.Now()}
	case was.end != e:
		b.find("I3", id, "the terminal of "+was.By+" is "+string(was.Status)+", that of "+by+" is "+string(e.Status)+
			sameStatus(was.Status == e.Status))
	}
}

func sameStatus(same bool) string {
	if same {
		return " with another content"
	}
	return ""
}

// Entries returns a copy of every entry, in the order of their jobs.
func (b *Book) Entries() []Entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]Entry, 0, len(b.entries))
	for _, e := range b.entries {
		out = append(out, *e)
	}
	slices.SortFunc(out, func(x, y Entry) int { return cmp.Or(cmp.Compare(x.N, y.N), cmp.Compare(x.Key, y.Key)) })
	return out
}

// Accepted returns the ids of the tasks whose 202 has come, oldest first.
func (b *Book) Accepted() []task.ID {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.order)
}

// Ended counts the accepted tasks of which anybody has been shown a terminal.
func (b *Book) Ended() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, id := range b.order {
		if len(b.seen[id]) > 0 {
			n++
		}
	}
	return n
}

// EndedAt is when anybody was first shown a terminal of the task; zero if
// nobody was.
func (b *Book) EndedAt(id task.ID) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	var first time.Time
	for _, s := range b.seen[id] {
		if first.IsZero() || s.At.Before(first) {
			first = s.At
		}
	}
	return first
}

// entry returns the entry of an accepted task.
func (b *Book) entry(id task.ID) (Entry, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.byID[id]
	if !ok {
		return Entry{}, false
	}
	return *e, true
}
