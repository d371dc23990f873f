//go:build e2e

package e2e_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/tasktopic"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/terminal"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/schema/wire"
)

// readAll returns every record of a topic up to its end at the call, in offset
// order within a partition.
func readAll(t *testing.T, name string) []*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cl, err := kafkaclient.New(
		kafkaclient.Config{Brokers: env.kafka, ClientID: "e2e"}, slog.New(slog.DiscardHandler),
		kafkaclient.ReaderOpts(kgo.NewOffset().AtStart(), name)...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	open := map[int32]int64{} // partition → the offset to read up to
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	starts, err := kadm.NewClient(cl).ListStartOffsets(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	ends.Each(func(end kadm.ListedOffset) {
		if start, ok := starts.Lookup(name, end.Partition); ok && start.Offset < end.Offset {
			open[end.Partition] = end.Offset
		}
	})
	var out []*kgo.Record
	for len(open) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read %s: %v; left: %v", name, err, open)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			out = append(out, r)
			if end, ok := open[r.Partition]; ok && r.Offset+1 >= end {
				delete(open, r.Partition)
			}
		})
	}
	return out
}

// outcome is what penstock.results says of one task.
type outcome struct {
	state  terminal.State
	wins   []terminal.Terminal // records that took effect, reopenings included
	losers int
}

// outcomes folds penstock.results by the one rule.
func outcomes(t *testing.T) map[task.ID]*outcome {
	t.Helper()
	out := map[task.ID]*outcome{}
	for _, r := range readAll(t, topic.Results) {
		end, err := wire.DecodeTerminal(tasktopic.FromKgo(r))
		if err != nil {
			t.Fatalf("%s/%d@%d: %v", r.Topic, r.Partition, r.Offset, err)
		}
		o := out[end.TaskID]
		if o == nil {
			o = &outcome{}
			out[end.TaskID] = o
		}
		var won bool
		if o.state, won = o.state.Apply(end, r.Offset); won {
			o.wins = append(o.wins, *end)
		} else {
			o.losers++
		}
	}
	return out
}
