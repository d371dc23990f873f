package convstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/conversation"
	"github.com/penstock/penstock/schema/task"
)

// Session is what a session remembers.
type Session struct {
	Settings *conversation.Settings // nil: nobody has set any
	Made     time.Time              // when the settings were; zero without
	Kept     time.Time              // what their latest record lasts until; zero without
	Until    time.Time              // it is forgotten then, unless another turn comes
	Turns    []Turn                 // the newest that were asked for, oldest first
	Total    int                    // how many there are
}

// Turn is a task of a session with the messages that it brought.
type Turn struct {
	TaskID     task.ID         `json:"task_id"`
	Lane       string          `json:"lane"` // topic of the task: within it the session's tasks run one after another
	At         time.Time       `json:"at"`
	Content    json.RawMessage `json:"content,omitempty"` // the messages, as a list
	ContentRef *task.Ref       `json:"content_ref,omitempty"`
}

// Session returns a session with the newest turns, at most so many. It returns
// ErrUnknown for one that was never begun, was deleted or is past its life, and
// ErrRebuilding when that cannot be said yet.
func (s *Store) Session(ctx context.Context, tenant, sessionID string, newest int) (*Session, error) {
	key := conversation.SessionKey(tenant, sessionID)
	partition := s.partition(key)
	head, turns, _ := rediskey.Session(partition, key)
	pipe := s.rdb.TxPipeline() // a record that is applied shows in all of it or in none
	at := s.Reads()
	at.Ask(ctx, pipe, partition)
	fields := pipe.HMGet(ctx, head, "s", "u", "sa", "su")
	list := pipe.LRange(ctx, turns, -int64(max(newest, 1)), -1)
	total := pipe.LLen(ctx, turns)
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("read session: %w", err)
	}
	out, err := sessionOf(fields.Val())
	if err != nil {
		return nil, err
	}
	if out == nil || !out.Until.After(time.Now()) {
		position, err := at.Of(partition)
		switch {
		case err != nil:
			return nil, err
		case !position.CaughtUp():
			return nil, ErrRebuilding
		}
		return nil, ErrUnknown
	}
	out.Total = int(total.Val())
	return out, out.read(list.Val(), newest)
}

func sessionOf(v []any) (*Session, error) {
	if _, known := redisclient.Text(v, 1); !known {
		return nil, nil
	}
	out := new(Session)
	for i, to := range []*time.Time{&out.Until, &out.Made, &out.Kept} {
		text, ok := redisclient.Text(v, i+1)
		if !ok {
			continue
		}
		ms, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("read session: time %q", text)
		}
		*to = time.UnixMilli(ms).UTC()
	}
	if text, ok := redisclient.Text(v, 0); ok {
		if err := json.Unmarshal([]byte(text), &out.Settings); err != nil {
			return nil, fmt.Errorf("read settings of session: %w", err)
		}
	}
	return out, nil
}

func (s *Session) read(texts []string, newest int) error {
	if newest < 1 {
		return nil
	}
	s.Turns = make([]Turn, len(texts))
	for i, text := range texts {
		if err := json.Unmarshal([]byte(text), &s.Turns[i]); err != nil {
			return fmt.Errorf("read turn of session: %w", err)
		}
	}
	return nil
}

// Turned reports whether a task's turn is there, or was and is no longer
// remembered for its age. Then all turns that began before it were there too.
func (s *Store) Turned(ctx context.Context, tenant, sessionID string, id task.ID) (bool, error) {
	key := conversation.SessionKey(tenant, sessionID)
	_, _, order := rediskey.Session(s.partition(key), key)
	_, err := s.rdb.ZScore(ctx, order, string(id)).Result()
	switch {
	case errors.Is(err, redis.Nil):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for turn of session: %w", err)
	}
	return true, nil
}
