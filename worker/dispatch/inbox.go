package dispatch

import (
	"sync"

	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/worker/consume"
)

// inbox carries everything that reaches the loop from other goroutines. Putting
// never blocks; what can gather is bounded by what is in flight.
type inbox struct {
	mu   sync.Mutex
	mail mail
	wake chan struct{} // holds one wish
}

// mail is what has gathered since the loop last looked.
type mail struct {
	deliveries []*consume.Delivery
	revoked    bool
	cancels    []task.ID
	events     []func() // run by the loop, in order
}

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

func (b *inbox) put(add func(*mail)) {
	b.mu.Lock()
	add(&b.mail)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default: // the loop will look at everything anyway
	}
}

func (b *inbox) take() mail {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.mail
	b.mail = mail{}
	return m
}

// Deliver implements consume.Sink.
func (l *Loop) Deliver(ds []*consume.Delivery) {
	l.inbox.put(func(m *mail) { m.deliveries = append(m.deliveries, ds...) })
}

// Revoked implements consume.Sink.
func (l *Loop) Revoked() { l.inbox.put(func(m *mail) { m.revoked = true }) }

// Cancel stops what runs or waits of a task whose cancel is durable. Unknown
// ids are ignored. Safe for concurrent use.
func (l *Loop) Cancel(id task.ID) {
	l.inbox.put(func(m *mail) { m.cancels = append(m.cancels, id) })
}

func (l *Loop) post(event func()) { l.inbox.put(func(m *mail) { m.events = append(m.events, event) }) }

var _ consume.Sink = (*Loop)(nil)
