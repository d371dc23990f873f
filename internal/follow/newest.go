package follow

import (
	"context"
	"time"

	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// newestWait bounds the question that Newest asks: who joins a stream waits.
const newestWait = 250 * time.Millisecond

// Newest returns the fence of the newest attempt of a task that has events: what
// attempts before it have told is void. Zero if nothing is known.
func (f *Follower) Newest(ctx context.Context, id task.ID) (event.Fence, error) {
	ctx, cancel := context.WithTimeout(ctx, newestWait)
	defer cancel()
	return f.log.Newest(ctx, id)
}
