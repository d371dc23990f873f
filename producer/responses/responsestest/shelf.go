// Package responsestest has a stand-in for what stored responses lie in.
package responsestest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/convstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/producer/responses"
	"github.com/penstock/penstock/schema/conversation"
	"github.com/penstock/penstock/schema/task"
)

var (
	_ responses.Publisher = (*Shelf)(nil)
	_ responses.Store     = (*Shelf)(nil)
)

// Shelf is penstock.conversations and its projection in memory. The zero Shelf
// is empty, and shows at once what was written.
type Shelf struct {
	mu      sync.Mutex
	records []*conversation.Record
	lag     time.Duration
	refused error
	away    error
}

// Records are those that were taken, oldest first.
func (s *Shelf) Records() []*conversation.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.records)
}

// Lag is how long after its time a record is shown.
func (s *Shelf) Lag(by time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag = by
}

// Refuse has every record fail with err; nil ends that.
func (s *Shelf) Refuse(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = err
}

// Away has every look fail with err; nil ends that.
func (s *Shelf) Away(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = err
}

// Conversation implements responses.Publisher.
func (s *Shelf) Conversation(_ context.Context, r *conversation.Record) (tasktopic.Ack, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused == nil {
		s.records = append(s.records, r)
	}
	return tasktopic.Ack{}, s.refused
}

// BrokerNow implements responses.Publisher.
func (s *Shelf) BrokerNow() time.Time { return time.Now() }

// Stored implements responses.Store.
func (s *Shelf) Stored(_ context.Context, id task.ID) (out *convstore.Request, deleted bool, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away != nil {
		return nil, false, s.away
	}
	for _, r := range s.records {
		switch {
		case r.TaskID != id, time.Since(r.At) < s.lag:
		case r.Step == conversation.Deleted:
			return nil, true, convstore.ErrUnknown
		default:
			out = &convstore.Request{At: r.At, Content: r.Content, ContentRef: r.ContentRef}
		}
	}
	if out == nil {
		return nil, false, convstore.ErrUnknown
	}
	return out, false, nil
}
