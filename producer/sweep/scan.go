package sweep

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/internal/taskstore"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
)

const (
	// scanBatch is how many records are taken and indexed at a time.
	scanBatch = 512
	// scanIdle ends a scan to which nothing comes: its partitions are away, or
	// end in something that is no record.
	scanIdle = 2 * time.Second
)

// span is what is to be read of a place.
type span struct{ from, to int64 }

// scan indexes the tasks that nobody has settled and no scan has seen. It is
// done by one process at a time, as far as Redis tells.
func (s *Sweeper) scan(ctx context.Context) error {
	lease := s.p.ScanEvery * 9 / 10 // over before the next tick of whoever had it
	held, err := s.store.LeaseScan(ctx, lease)
	if err != nil || !held {
		return err
	}
	began, err := s.store.Scan(ctx)
	if err != nil {
		return err
	}
	todo, err := s.unread(ctx, began.At)
	if err != nil || len(todo) == 0 {
		return err
	}
	s.cl.AddConsumePartitions(offsets(todo))
	defer func() { s.cl.RemoveConsumePartitions(partitions(todo)) }()
	for len(todo) > 0 {
		records := s.poll(ctx)
		if len(records) == 0 {
			return context.Cause(ctx)
		}
		if err := s.index(ctx, began, todo, records); err != nil {
			return err
		}
		if err := s.store.KeepScan(ctx, lease); err != nil {
			return err
		}
		if err := s.pace.WaitN(ctx, len(records)); err != nil {
			return err
		}
	}
	return nil
}

// unread finds, for each partition that holds tasks, what lies between its
// group's watermark and its end and was not scanned yet.
func (s *Sweeper) unread(ctx context.Context, scanned map[taskstore.Place]int64) (map[taskstore.Place]*span, error) {
	adm := kadm.NewClient(s.cl)
	out := map[taskstore.Place]*span{}
	for group, topics := range topic.Consumed(s.p.Pools) {
		committed, err := adm.FetchOffsetsForTopics(ctx, group, topics...)
		if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // a group that never met has settled nothing
			return nil, fmt.Errorf("fetch offsets of group %s: %w", group, err)
		}
		starts, err := adm.ListStartOffsets(ctx, topics...)
		if err == nil {
			err = starts.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("list start offsets: %w", err)
		}
		ends, err := adm.ListEndOffsets(ctx, topics...)
		if err == nil {
			err = ends.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("list end offsets: %w", err)
		}
		ends.Each(func(end kadm.ListedOffset) {
			place := taskstore.Place{Topic: end.Topic, Partition: end.Partition}
			from := scanned[place]
			if start, ok := starts.Lookup(end.Topic, end.Partition); ok {
				from = max(from, start.Offset)
			}
			if at, ok := committed.Lookup(end.Topic, end.Partition); ok {
				from = max(from, at.At)
			}
			if from < end.Offset {
				out[place] = &span{from, end.Offset}
			}
		})
	}
	return out, nil
}

func (s *Sweeper) poll(ctx context.Context) []*kgo.Record {
	idle, cancel := context.WithTimeout(ctx, scanIdle)
	defer cancel()
	for idle.Err() == nil {
		fetches := s.cl.PollRecords(idle, scanBatch)
		fetches.EachError(func(name string, partition int32, err error) {
			if idle.Err() == nil {
				s.log.Debug("scan open tasks", "topic", name, "partition", partition, "err", err)
			}
		})
		if records := fetches.Records(); len(records) > 0 {
			return records
		}
	}
	return nil
}

// index hints the tasks of records and notes how far each place was read.
// Places that were read to the end leave todo.
func (s *Sweeper) index(ctx context.Context, began taskstore.Scan, todo map[taskstore.Place]*span, records []*kgo.Record) error {
	hints := make([]taskstore.Hint, 0, len(records))
	at := map[taskstore.Place]int64{}
	for _, r := range records {
		place := taskstore.Place{Topic: r.Topic, Partition: r.Partition}
		want := todo[place]
		if want == nil || r.Offset < want.from || r.Offset >= want.to {
			continue
		}
		at[place], want.from = r.Offset+1, r.Offset+1
		if t, p, err := wire.DecodeTask(tasktopic.FromKgo(r)); err == nil { // else a worker buries it
			hints = append(hints, hintOf(t, p))
		}
	}
	if err := s.store.Hint(ctx, hints); err != nil {
		return err
	}
	if err := s.store.SetScanned(ctx, began, at); err != nil {
		return err
	}
	s.metrics.scanned.Add(float64(len(hints)))
	for place := range at {
		if want := todo[place]; want.from >= want.to {
			delete(todo, place)
			s.cl.RemoveConsumePartitions(partitions(map[taskstore.Place]*span{place: want}))
		}
	}
	return nil
}

func hintOf(t *task.Task, p task.Progress) taskstore.Hint {
	return taskstore.Hint{
		ID: t.ID, Tenant: t.Tenant, Status: task.Queued, Generation: p.Generation, Attempt: p.Attempts,
		Model: t.Model, Class: t.Class, Labels: t.Labels, CreatedAt: t.Timestamp, Deadline: t.Deadline,
	}
}

func offsets(todo map[taskstore.Place]*span) map[string]map[int32]kgo.Offset {
	out := map[string]map[int32]kgo.Offset{}
	for place, want := range todo {
		if out[place.Topic] == nil {
			out[place.Topic] = map[int32]kgo.Offset{}
		}
		out[place.Topic][place.Partition] = kgo.NewOffset().At(want.from)
	}
	return out
}

func partitions(todo map[taskstore.Place]*span) map[string][]int32 {
	out := map[string][]int32{}
	for place := range todo {
		out[place.Topic] = append(out[place.Topic], place.Partition)
	}
	return out
}
