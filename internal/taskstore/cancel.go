package taskstore

import (
	"context"
	"fmt"
	"sync"

	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/task"
)

// SignalCancel tells the workers that a cancelled terminal of a task is
// durable. The signal may be lost: then the worker finishes and its terminal
// loses.
func (s *Store) SignalCancel(ctx context.Context, id task.ID) error {
	if err := s.rdb.Publish(ctx, rediskey.Cancel, string(id)).Err(); err != nil {
		return fmt.Errorf("signal cancel of task %s: %w", id, err)
	}
	return nil
}

// Cancels returns the ids that are signalled from now on, until ctx is done;
// then the channel is closed. It survives a Redis that comes and goes; signals
// of the time between are lost. A reader that falls behind loses signals too.
func (s *Store) Cancels(ctx context.Context) (<-chan task.ID, error) {
	sub := s.rdb.Subscribe(ctx, rediskey.Cancel)
	messages := sub.Channel() // reconnects and resubscribes on its own; drops for a slow reader
	out := make(chan task.ID)
	done := context.AfterFunc(ctx, func() { _ = sub.Close() }) // closes messages
	var wg sync.WaitGroup                                      // its end is told by closing out
	wg.Go(func() {                                             // ends with messages, which ctx closes
		defer close(out)
		defer done()
		for m := range messages {
			id, err := task.ParseID(m.Payload)
			if err != nil {
				continue
			}
			select {
			case out <- id:
			case <-ctx.Done():
				return
			}
		}
	})
	return out, nil
}
