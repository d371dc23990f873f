package ledger

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/cmd/system/topiclog"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/deadletter"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
)

// place is a partition.
type place struct {
	topic     string
	partition int32
}

// Log is what lies on Kafka of every task: the truth that the book is held
// against.
type Log struct {
	Tasks   map[task.ID][]Hop
	Ends    map[task.ID]*topiclog.Outcome
	Letters []Letter
	Unread  []string // records that could not be decoded, by place

	hops map[place]map[int64]hopOf // what lies at an offset of a tasks or retry topic
}

// Hop is one record of a task on a tasks or retry topic.
type Hop struct {
	Topic      string
	Partition  int32
	Offset     int64
	At         time.Time // of its writing
	Generation uint8
	Hop        uint16
	Tenant     string
	Prompt     string
}

type hopOf struct {
	id task.ID
	Hop
}

// Letter is one dead letter and its place.
type Letter struct {
	deadletter.Letter
	Partition int32
	Offset    int64
}

// Pooled returns the topics that hold tasks of some pools: lanes and retry
// tiers.
func Pooled(pools ...string) []string {
	var out []string
	for _, list := range topic.Consumed(pools) {
		out = append(out, list...)
	}
	slices.Sort(out)
	return out
}

// ReadLog reads everything that Kafka holds of the tasks of some pools.
func ReadLog(ctx context.Context, brokers []string, pools ...string) (*Log, error) {
	var records []*kgo.Record
	for _, name := range append(Pooled(pools...), topic.Results, topic.DeadLetters) {
		part, err := topiclog.ReadAll(ctx, brokers, name)
		if err != nil {
			return nil, err
		}
		records = append(records, part...)
	}
	return NewLog(records)
}

// NewLog sorts records out; those of a partition must be in offset order.
func NewLog(records []*kgo.Record) (*Log, error) {
	l := &Log{Tasks: map[task.ID][]Hop{}, hops: map[place]map[int64]hopOf{}}
	var results []*kgo.Record
	for _, r := range records {
		switch r.Topic {
		case topic.Results:
			results = append(results, r)
		case topic.DeadLetters:
			l.addLetter(r)
		default:
			l.addTask(r)
		}
	}
	var err error
	l.Ends, err = topiclog.Fold(results)
	return l, err
}

func (l *Log) undecodable(r *kgo.Record, err error) {
	l.Unread = append(l.Unread, fmt.Sprintf("%s/%d@%d: %v", r.Topic, r.Partition, r.Offset, err))
}

func (l *Log) addLetter(r *kgo.Record) {
	letter, err := wire.DecodeDeadLetter(tasktopic.FromKgo(r))
	if err != nil {
		l.undecodable(r, err)
		return
	}
	l.Letters = append(l.Letters, Letter{letter, r.Partition, r.Offset})
}

func (l *Log) addTask(r *kgo.Record) {
	t, p, err := wire.DecodeTask(tasktopic.FromKgo(r))
	if err != nil {
		l.undecodable(r, err)
		return
	}
	h := Hop{r.Topic, r.Partition, r.Offset, r.Timestamp, p.Generation, p.Hop, t.Tenant, promptOf(t.Payload)}
	l.Tasks[t.ID] = append(l.Tasks[t.ID], h)
	at := place{r.Topic, r.Partition}
	if l.hops[at] == nil {
		l.hops[at] = map[int64]hopOf{}
	}
	l.hops[at][r.Offset] = hopOf{t.ID, h}
}

func promptOf(p task.Payload) string {
	if p.Messages != nil {
		return string(p.Messages)
	}
	return p.Text
}

// later reports whether h was written by a hop after other.
func (h Hop) later(other Hop) bool {
	return h.Generation > other.Generation || h.Generation == other.Generation && h.Hop > other.Hop
}

// Census counts dead letters by task, after identity collapse: duplicates of
// one place and generation are one death.
func (l *Log) Census() map[task.ID]int {
	type identity struct {
		topic      string
		partition  int32
		offset     int64
		generation uint8
	}
	seen := map[identity]bool{}
	out := map[task.ID]int{}
	for _, x := range l.Letters {
		id := identity{x.Origin.Topic, x.Origin.Partition, x.Origin.Offset, x.Generation}
		if !seen[id] {
			seen[id] = true
			out[x.TaskID]++
		}
	}
	return out
}
