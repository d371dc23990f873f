package project

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/internal/projection"
)

// Pauses between tries while Redis is down.
const (
	pauseFirst = 50 * time.Millisecond
	pauseMost  = time.Second
)

// apply projects what was fetched of one partition. While Redis is down it
// tries again, as long as the partition is ours: nothing more is fetched
// meanwhile.
func (p *Projector[R]) apply(ctx context.Context, cl *kgo.Client, partition int32, records []*kgo.Record, end int64) {
	from, upTo := records[0].Offset, records[len(records)-1].Offset+1
	applied, bad := p.decode(records)
	for try := 0; ; try++ {
		if _, owned := p.position(partition); !owned {
			return
		}
		err := p.of.Store.Apply(ctx, partition, from, upTo, applied)
		var gap *projection.GapError
		switch {
		case err == nil:
			p.move(partition, upTo)
			p.metrics.records.WithLabelValues(outcomeApplied).Add(float64(len(applied)))
			p.metrics.records.WithLabelValues(outcomeUndecodable).Add(float64(bad))
			p.metrics.lag.WithLabelValues(label(partition)).Set(float64(max(0, end-upTo)))
			return
		case errors.As(err, &gap):
			p.settle(ctx, cl, partition)
			return
		case ctx.Err() != nil:
			return
		}
		if try == 0 {
			p.log.Warn("apply records", "partition", partition, "err", err)
		}
		if !lifecycle.Pause(ctx, min(pauseFirst<<min(try, 8), pauseMost)) {
			return
		}
	}
}

// decode reads the records. Those it cannot are our own bug, or somebody else's:
// they are counted and passed over, and their bytes are kept out of the log.
func (p *Projector[R]) decode(records []*kgo.Record) (out []R, bad int) {
	out = make([]R, 0, len(records))
	for _, r := range records {
		one, err := p.of.Decode(r)
		if err != nil {
			bad++
			p.log.Warn("undecodable record passed over", "partition", r.Partition, "offset", r.Offset)
			continue
		}
		out = append(out, one)
	}
	return out, bad
}
