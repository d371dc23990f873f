package convstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/task"
)

// Request is what a stored response was asked.
type Request struct {
	At         time.Time       `json:"at"`
	Content    json.RawMessage `json:"content,omitempty"`
	ContentRef *task.Ref       `json:"content_ref,omitempty"`
	Offset     int64           `json:"offset"` // of its record

	// Restored says that Redis has been filled again since: what else it held of
	// that time, such as events, may be lost.
	Restored bool `json:"-"`
}

// Stored returns the request of a stored response. It returns ErrUnknown for one
// that was deleted, never stored, or is past its life, and ErrRebuilding when
// that cannot be said yet. Deleted is true if it was there and is gone: waiting
// for it is in vain.
func (s *Store) Stored(ctx context.Context, id task.ID) (r *Request, deleted bool, err error) {
	partition := s.partition(string(id))
	pipe := s.rdb.Pipeline()
	at := s.Reads()
	at.Ask(ctx, pipe, partition) // first: caught up, and then unknown, is unknown
	get := pipe.Get(ctx, rediskey.Stored(partition, id))
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) { // Nil: nothing is known
		return nil, false, fmt.Errorf("read stored response: %w", err)
	}
	text, err := get.Result()
	switch {
	case err == nil && text == "":
		return nil, true, ErrUnknown
	case err == nil:
		r = new(Request)
		if err := json.Unmarshal([]byte(text), r); err != nil {
			return nil, false, fmt.Errorf("read stored response: %w", err)
		}
		position, err := at.Of(partition)
		r.Restored = !position.Known || r.Offset < position.Target
		return r, false, err
	}
	position, err := at.Of(partition)
	switch {
	case err != nil:
		return nil, false, err
	case !position.CaughtUp():
		return nil, false, ErrRebuilding
	}
	return nil, false, ErrUnknown
}
