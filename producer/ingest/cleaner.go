package ingest

import (
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/penstock/penstock/internal/taskstore"
)

// cleaner bounds the work that full queues cause, however many submits run into
// them: of each queue, one member a millisecond is looked at.
type cleaner struct {
	shared singleflight.Group // submits that meet one full queue at once have it cleaned once

	mu    sync.Mutex                    // guards until
	until map[taskstore.Queue]time.Time // when a queue may be cleaned again
}

// rested is how many queues are remembered before those are forgotten that may
// be cleaned again. The others are few: each is full, and was just cleaned.
const rested = 1024

// restAfter is how long a queue of which so many members were looked at is left
// as it is.
func restAfter(looked int) time.Duration { return time.Duration(looked) * time.Millisecond }

// do has a queue cleaned unless it rests, and reports whether it was. clean
// returns how many members it looked at.
func (c *cleaner) do(q taskstore.Queue, clean func() int) bool {
	done, _, _ := c.shared.Do(q.Tenant+"\x00"+q.OrderingKey, func() (any, error) {
		if c.resting(q, time.Now()) {
			return false, nil
		}
		c.rest(q, clean())
		return true, nil
	})
	cleaned, _ := done.(bool)
	return cleaned
}

func (c *cleaner) resting(q taskstore.Queue, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return now.Before(c.until[q])
}

func (c *cleaner) rest(q taskstore.Queue, looked int) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.until) >= rested {
		maps.DeleteFunc(c.until, func(_ taskstore.Queue, until time.Time) bool { return !until.After(now) })
	}
	c.until[q] = now.Add(restAfter(looked))
}
