// Package topiclog reads what Kafka holds of a system: the records themselves,
// and what they mean for each task. It is the truth that tests hold the
// system's answers against, and shares no code with the services that serve
// them but the contract.
package topiclog

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
)

// ReadAll returns every record of a topic up to its end at the call, in offset
// order within a partition.
func ReadAll(ctx context.Context, brokers []string, name string) ([]*kgo.Record, error) {
	return ReadAllOf(ctx, kafkaclient.Config{Brokers: brokers, ClientID: "topiclog"}, name)
}

// ReadAllOf is ReadAll for a cluster that takes more than addresses to reach.
func ReadAllOf(ctx context.Context, c kafkaclient.Config, name string) ([]*kgo.Record, error) {
	cl, err := kafkaclient.New(c, slog.New(slog.DiscardHandler), kafkaclient.ReaderOpts(kgo.NewOffset().AtStart(), name)...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	open, err := ends(ctx, kadm.NewClient(cl), name)
	if err != nil {
		return nil, err
	}
	var out []*kgo.Record
	for len(open) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("read %s: %w; left: %v", name, err, open)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			out = append(out, r)
			if end, ok := open[r.Partition]; ok && r.Offset+1 >= end {
				delete(open, r.Partition)
			}
		})
	}
	return out, nil
}

// ends returns, for each partition that has records, the offset to read up to.
func ends(ctx context.Context, adm *kadm.Client, name string) (map[int32]int64, error) {
	ends, err := adm.ListEndOffsets(ctx, name)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list the ends of %s: %w", name, err)
	}
	starts, err := adm.ListStartOffsets(ctx, name)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list the starts of %s: %w", name, err)
	}
	open := map[int32]int64{}
	ends.Each(func(end kadm.ListedOffset) {
		if start, ok := starts.Lookup(name, end.Partition); ok && start.Offset < end.Offset {
			open[end.Partition] = end.Offset
		}
	})
	return open, nil
}

// Outcome is what penstock.results says of one task.
type Outcome struct {
	State  terminal.State
	Wins   []terminal.Terminal // records that took effect, reopenings included
	Losers int                 // records that came too late

	Partition int32   // that holds them
	Offsets   []int64 // of every terminal, winners or not
}

// Ended returns the visible terminal of the open generation; nil if there is
// none, or nothing is known of the task.
func (o *Outcome) Ended() *terminal.Terminal {
	if o == nil || len(o.Wins) == 0 || o.State.Open() {
		return nil
	}
	return &o.Wins[len(o.Wins)-1]
}

// Outcomes folds penstock.results by the one rule: the first terminal of a
// generation wins.
func Outcomes(ctx context.Context, brokers []string) (map[task.ID]*Outcome, error) {
	records, err := ReadAll(ctx, brokers, topic.Results)
	if err != nil {
		return nil, err
	}
	return Fold(records)
}

// Fold is Outcomes for records that were read before, in offset order within a
// partition.
func Fold(records []*kgo.Record) (map[task.ID]*Outcome, error) {
	out := map[task.ID]*Outcome{}
	for _, r := range records {
		end, err := wire.DecodeTerminal(tasktopic.FromKgo(r))
		if err != nil {
			return nil, fmt.Errorf("%s/%d@%d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		o := out[end.TaskID]
		if o == nil {
			o = &Outcome{Partition: r.Partition}
			out[end.TaskID] = o
		}
		if end.Status.Terminal() {
			o.Offsets = append(o.Offsets, r.Offset)
		}
		var won bool
		if o.State, won = o.State.Apply(end, r.Offset); won {
			o.Wins = append(o.Wins, *end)
		} else {
			o.Losers++
		}
	}
	return out, nil
}
