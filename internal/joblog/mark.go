package joblog

import (
	"context"
	"sync"
)

// Mark is how far a process has folded the log. It is safe for concurrent use.
type Mark struct {
	mu      sync.Mutex
	next    int64         // offset after the last entry that was folded
	changed chan struct{} // closed and replaced on every change
}

// NewMark returns a mark at the log's beginning.
func NewMark() *Mark { return &Mark{changed: make(chan struct{})} }

// Advance notes that everything below next is folded, and wakes whoever waits.
func (m *Mark) Advance(next int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next = max(m.next, next)
	close(m.changed)
	m.changed = make(chan struct{})
}

// Await returns once the entry at an offset is folded, or with the cause of ctx.
func (m *Mark) Await(ctx context.Context, offset int64) error {
	for {
		reached, changed := m.passed(offset)
		if reached {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if reached, _ := m.passed(offset); reached { // both at once
				return nil
			}
			return context.Cause(ctx)
		}
	}
}

func (m *Mark) passed(offset int64) (reached bool, changed <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.next > offset, m.changed
}

// Changed returns a channel that is closed at the next Advance. Who asks for it
// first and then looks at the fold misses nothing.
func (m *Mark) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}
