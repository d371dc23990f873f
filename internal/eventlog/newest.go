package eventlog

import (
	"context"
	"fmt"

	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// Newest returns the fence of the newest attempt whose events the stream of a
// task holds, whether or not its end follows them; zero if there is none.
func (l *Log) Newest(ctx context.Context, id task.ID) (event.Fence, error) {
	messages, err := l.rdb.XRevRangeN(ctx, rediskey.Events(l.partition(id), id), "+", "-", 2).Result()
	if err != nil {
		return 0, fmt.Errorf("read newest attempt of task %s: %w", id, err)
	}
	for _, m := range messages {
		at, err := event.ParseID(m.ID)
		if err != nil {
			return 0, fmt.Errorf("read newest attempt of task %s: %q: %w", id, m.ID, err)
		}
		if !at.Fence.Terminal() {
			return at.Fence, nil
		}
	}
	return 0, nil
}
