package eventlog

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/penstock/penstock/internal/redisclient"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

//go:embed lua/fold.lua
var foldSource string

var foldScript = redisclient.NewScript(foldSource)

// fold replaces the older half of a stream that has grown too long by a
// snapshot: the text so far of the newest fence in it, under the id of the last
// event folded in. The stream's order of ids is not touched, and whoever folds
// the same head comes to the same snapshot.
func (l *Log) fold(ctx context.Context, id task.ID) error {
	p := l.partition(id)
	was, err := l.snapshot(ctx, id)
	if err != nil {
		return err
	}
	head, err := l.ReadMany(ctx, []Range{{ID: id, After: was.ID, Limit: l.p.MaxLen / 2}})
	if err != nil {
		return err
	}
	next, err := foldEvents(was, head[0].Entries)
	if err != nil || len(head[0].Entries) == 0 {
		return err
	}
	before := ""
	if !was.ID.IsZero() {
		before = was.ID.String()
	}
	err = foldScript.Run(ctx, l.rdb, redisclient.Call{
		Keys: []string{rediskey.Events(p, id), rediskey.Snapshot(p, id)},
		Args: []any{next.ID.String(), next.Data, l.keep(), before, l.nonce},
	}).Err()
	if err != nil {
		return fmt.Errorf("fold events of task %s: %w", id, err)
	}
	return nil
}

// reasonFolded is why a snapshot cannot tell what it folds in.
const reasonFolded = "the answer is not text alone and too long to be kept whole; the end has it"

// foldEvents adds events to a snapshot. Text of different fences is never
// joined: a new fence begins with nothing. With a gap in it there is no text so
// far, so it is a gap itself; and so it is when text is not all there was.
func foldEvents(was Entry, entries []Entry) (Entry, error) {
	sum := event.Event{Type: event.Snapshot}
	if !was.ID.IsZero() {
		var err error
		if sum, err = was.Event(); err != nil {
			return Entry{}, err
		}
	}
	for _, entry := range entries {
		e, err := entry.Event()
		if err != nil {
			return Entry{}, err
		}
		if e.ID.Fence != sum.ID.Fence {
			sum = event.Event{Type: event.Snapshot}
		}
		switch {
		case e.Type == event.Gap:
			sum.Type, sum.Text, sum.Reason = event.Gap, "", e.Reason
		case e.Choice != nil && sum.Type == event.Snapshot:
			sum.Type, sum.Text, sum.Reason = event.Gap, "", reasonFolded
		}
		if sum.Type == event.Snapshot {
			sum.Text += e.Text
		}
		sum.ID, sum.TaskID, sum.At = e.ID, e.TaskID, e.At
		if e.Attempt > 0 {
			sum.Attempt = e.Attempt
		}
	}
	return EntryOf(sum)
}

// snapshot reads what was folded out of a stream; zero if nothing was.
func (l *Log) snapshot(ctx context.Context, id task.ID) (Entry, error) {
	v, err := l.rdb.HMGet(ctx, rediskey.Snapshot(l.partition(id), id), "id", "e").Result()
	if err != nil {
		return Entry{}, fmt.Errorf("read snapshot of task %s: %w", id, err)
	}
	text, _ := v[0].(string)
	data, _ := v[1].(string)
	if text == "" {
		return Entry{}, nil
	}
	at, err := event.ParseID(text)
	if err != nil {
		return Entry{}, fmt.Errorf("read snapshot of task %s: %q: %w", id, text, err)
	}
	return Entry{ID: at, Data: []byte(data)}, nil
}
