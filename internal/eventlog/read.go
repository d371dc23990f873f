package eventlog

import (
	"context"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// Range asks for the events of one task after an id; the zero id asks for all.
type Range struct {
	ID    task.ID
	After event.ID
	Limit int // default 1024
}

// readDefault is the Limit of a Range that names none.
const readDefault = 1024

// History is what a stream holds of a Range.
type History struct {
	Entries []Entry // in order; the first is a snapshot if the head was folded away
	More    bool    // Limit was reached
	Trimmed bool    // events right after the Range's id are lost for good
}

// Read returns up to limit events after an id, and whether events before them
// are lost for good. If the head of the stream was folded away, the first is
// the snapshot of it.
func (l *Log) Read(ctx context.Context, id task.ID, after event.ID, limit int) ([]event.Event, bool, error) {
	all, err := l.ReadMany(ctx, []Range{{ID: id, After: after, Limit: limit}})
	if err != nil {
		return nil, false, err
	}
	out := make([]event.Event, len(all[0].Entries))
	for i, entry := range all[0].Entries {
		if out[i], err = entry.Event(); err != nil {
			return nil, false, err
		}
	}
	return out, all[0].Trimmed, nil
}

// ReadMany reads many ranges in one round trip (and a second for those whose
// head is missing), in the order asked.
func (l *Log) ReadMany(ctx context.Context, ranges []Range) ([]History, error) {
	pipe := l.rdb.Pipeline()
	cmds := make([]*redis.XMessageSliceCmd, len(ranges))
	for i, r := range ranges {
		cmds[i] = pipe.XRangeN(ctx, rediskey.Events(l.partition(r.ID), r.ID), start(r.After), "+", int64(r.limit()))
	}
	if _, err := pipe.Exec(ctx); err != nil && len(ranges) > 0 {
		return nil, fmt.Errorf("read events: %w", err)
	}
	out := make([]History, len(ranges))
	for i, c := range cmds {
		var err error
		if out[i], err = historyOf(c.Val(), ranges[i]); err != nil {
			return nil, err
		}
		if out[i].Trimmed {
			if err := l.mend(ctx, ranges[i], &out[i]); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

func (r Range) limit() int {
	if r.Limit <= 0 {
		return readDefault
	}
	return r.Limit
}

// start is the exclusive beginning of an XRANGE.
func start(after event.ID) string {
	if after.IsZero() {
		return "-"
	}
	return "(" + after.String()
}

func historyOf(messages []redis.XMessage, r Range) (History, error) {
	h := History{Entries: make([]Entry, 0, len(messages)), More: len(messages) == r.limit()}
	for _, m := range messages {
		id, err := event.ParseID(m.ID)
		if err != nil {
			return h, fmt.Errorf("read events of task %s: %q: %w", r.ID, m.ID, err)
		}
		data, _ := m.Values[fieldEvent].(string)
		h.Entries = append(h.Entries, Entry{ID: id, Data: []byte(data)})
	}
	h.Trimmed = len(h.Entries) > 0 && !h.Entries[0].Follows(r.After)
	return h, nil
}

// Follows reports whether nothing of a task's events can lie between two ids:
// the next is the next of its fence, or the first of a later one, or a
// terminal.
func Follows(last, next event.ID) bool {
	switch {
	case next.Fence.Terminal():
		return true
	case next.Fence == last.Fence:
		return next.Seq == last.Seq+1
	default:
		return next.Seq == 0
	}
}

// Follows reports whether nothing that is not told of lies between an event and
// this one: a gap tells of everything before it in its fence.
func (e Entry) Follows(last event.ID) bool {
	return Follows(last, e.ID) || last.Fence == e.ID.Fence && e.Type() == event.Gap
}

// mend puts the snapshot before a history whose head is missing.
func (l *Log) mend(ctx context.Context, r Range, h *History) error {
	snap, err := l.snapshot(ctx, r.ID)
	if err != nil {
		return err
	}
	if snap.ID.IsZero() || !r.After.Less(snap.ID) || !h.Entries[0].Follows(snap.ID) {
		return nil
	}
	h.Entries = append([]Entry{snap}, h.Entries...)
	h.Trimmed = false
	return nil
}

// cutLive splits the payload of a live channel.
func cutLive(payload string) (Entry, error) {
	for i := range len(payload) {
		if payload[i] != ' ' {
			continue
		}
		id, err := event.ParseID(payload[:i])
		if err != nil {
			return Entry{}, fmt.Errorf("live event %s: %w", strconv.Quote(payload[:i]), err)
		}
		return Entry{ID: id, Data: []byte(payload[i+1:])}, nil
	}
	return Entry{}, fmt.Errorf("live event: %w", event.ErrID)
}
