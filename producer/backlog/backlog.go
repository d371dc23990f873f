// Package backlog tells the ingress when unfinished work has become so old that
// Kafka could drop it before it is done.
//
// Tasks are kept by time, and every task lives at most half as long as its
// topic keeps it. A backlog older than Share of that life means that workers do
// not keep up: more work would only add to what is lost. The verdict comes from
// one poll of offsets every Every, so it costs a submit nothing. While polls
// fail the last verdict stands.
package backlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/schema/topic"
)

// Params are the developer's choices.
type Params struct {
	Pools  []string
	MaxAge time.Duration // the longest a task may live
	Share  float64       // of MaxAge, from which the ingress refuses; default 0.8
	Every  time.Duration // between two polls; default 10 s

	NowFunc func() time.Time // the brokers' present; nil: the local clock
}

// Watch holds the verdict. It is safe for concurrent use.
type Watch struct {
	adm     *kadm.Client
	p       Params
	log     *slog.Logger
	metrics metrics
	over    atomic.Bool
}

// New returns a Watch whose verdict is good until the first poll of Run. It
// does not own the client.
func New(cl *kgo.Client, p Params, log *slog.Logger, reg prometheus.Registerer) *Watch {
	if p.Share == 0 {
		p.Share = 0.8
	}
	if p.Every == 0 {
		p.Every = 10 * time.Second
	}
	if p.NowFunc == nil {
		p.NowFunc = time.Now
	}
	return &Watch{adm: kadm.NewClient(cl), p: p, log: log, metrics: newMetrics(reg)}
}

// Over reports whether new tasks should be refused.
func (w *Watch) Over() bool { return w.over.Load() }

// Run polls until ctx ends.
func (w *Watch) Run(ctx context.Context) {
	tick := time.NewTicker(w.p.Every)
	defer tick.Stop()
	for {
		if err := w.Poll(ctx); err != nil && ctx.Err() == nil {
			w.log.Warn("backlog not known, the last verdict stands", "over", w.Over(), "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Poll looks once.
func (w *Watch) Poll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.p.Every)
	defer cancel()
	var total counts
	for group, topics := range topic.Consumed(w.p.Pools) {
		c, err := w.look(ctx, group, topics)
		if err != nil {
			return fmt.Errorf("look at group %s: %w", group, err)
		}
		total.old += c.old
		total.lost += c.lost
	}
	w.conclude(total)
	return nil
}

// counts are partitions.
type counts struct {
	old  int // whose oldest unsettled record is too old
	lost int // whose watermark lies below the start of the log
}

// look compares a group's watermarks with the first offset that is young
// enough: a watermark below it has an unsettled record above the age.
func (w *Watch) look(ctx context.Context, group string, topics []string) (counts, error) {
	committed, err := w.adm.FetchOffsetsForTopics(ctx, group, topics...)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // a group that never met has settled nothing
		return counts{}, fmt.Errorf("fetch offsets: %w", err)
	}
	starts, err := w.adm.ListStartOffsets(ctx, topics...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return counts{}, fmt.Errorf("list start offsets: %w", err)
	}
	// Asked before the offsets by time: where no record is young enough those are
	// the log's end, but as it is when all have been asked. What is written until
	// then is young.
	ends, err := w.adm.ListEndOffsets(ctx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return counts{}, fmt.Errorf("list end offsets: %w", err)
	}
	age := time.Duration(float64(w.p.MaxAge) * w.p.Share)
	young, err := w.adm.ListOffsetsAfterMilli(ctx, w.p.NowFunc().Add(-age).UnixMilli(), topics...)
	if err == nil {
		err = young.Error()
	}
	if err != nil {
		return counts{}, fmt.Errorf("list offsets by time: %w", err)
	}
	var c counts
	starts.Each(func(start kadm.ListedOffset) {
		watermark := start.Offset
		if at, ok := committed.Lookup(start.Topic, start.Partition); ok && at.At >= 0 {
			if at.At < start.Offset {
				c.lost++
				w.log.Error("records were dropped before they were settled: raise the retention or add workers",
					"topic", start.Topic, "partition", start.Partition, "offset", at.At, "start", start.Offset)
			}
			watermark = max(at.At, start.Offset)
		}
		first, asked := young.Lookup(start.Topic, start.Partition)
		end, known := ends.Lookup(start.Topic, start.Partition)
		if asked && known && watermark < min(first.Offset, end.Offset) {
			c.old++
		}
	})
	return c, nil
}

// conclude publishes the verdict and says when it changes.
func (w *Watch) conclude(c counts) {
	w.metrics.old.Set(float64(c.old))
	w.metrics.lost.Set(float64(c.lost))
	over := c.old > 0
	switch was := w.over.Swap(over); {
	case over && !was:
		w.log.Error("unfinished tasks are too old, new ones are refused: add workers", "partitions", c.old)
	case was && !over:
		w.log.Info("the backlog is young again, tasks are accepted")
	}
}
