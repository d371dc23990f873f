package consume

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// assigned starts an owner for each partition that is ours from now on. The
// generation is taken once, here, and never read again: it goes into fences.
func (g *Group) assigned(_ context.Context, cl *kgo.Client, added map[string][]int32) {
	_, generation := cl.GroupMetadata()
	g.mu.Lock()
	defer g.mu.Unlock()
	for topic, partitions := range added {
		for _, p := range partitions {
			at := lane{topic, p}
			if old, held := g.owners[at]; held { // never seen; the old one must not commit
				old.revoked = true
			}
			g.owners[at] = &owner{group: g, at: at, generation: generation, pending: map[int64]*Delivery{}}
		}
	}
	g.m.partitions.Set(float64(len(g.owners)))
	g.flow()
}

// fetched restores the trackers of new partitions from the group's commits.
func (g *Group) fetched(_ context.Context, _ *kgo.Client, resp *kmsg.OffsetFetchResponse) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, group := range resp.Groups {
		for _, t := range group.Topics {
			for _, p := range t.Partitions {
				o, ok := g.owners[lane{t.Topic, p.Partition}]
				if ok && o.track == nil && p.ErrorCode == 0 && p.Offset >= 0 {
					g.restore(o, p)
				}
			}
		}
	}
	return nil
}

func (g *Group) restore(o *owner, p kmsg.OffsetFetchResponseGroupTopicPartition) {
	metadata := ""
	if p.Metadata != nil {
		metadata = *p.Metadata
	}
	track, err := RestoreTracker(p.Offset, metadata)
	if err != nil {
		g.m.metadataIgnored.Inc()
		g.log.Warn("commit metadata ignored: settled work above the watermark is repeated",
			"topic", o.at.topic, "partition", o.at.partition, "offset", p.Offset, "err", err)
	}
	o.track = track
}

// revoked gives partitions up: from the moment the flag is set nothing more is
// settled on them, then they are committed one last time.
func (g *Group) revoked(ctx context.Context, _ *kgo.Client, gone map[string][]int32) {
	last := g.giveUp(gone)
	if len(last) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, g.p.RevokeWait)
	defer cancel()
	if err := g.commitFirmly(ctx, last); err != nil {
		g.log.Warn("commit at revoke failed: settled work is repeated by the next owner", "err", err)
	}
}

// lost is giving up without a commit: somebody else may own them already.
func (g *Group) lost(_ context.Context, _ *kgo.Client, gone map[string][]int32) { g.giveUp(gone) }

// giveUp flags the owners and returns what is left to commit for them.
func (g *Group) giveUp(gone map[string][]int32) []snapshot {
	g.mu.Lock()
	defer g.mu.Unlock()
	var last []snapshot
	for topic, partitions := range gone {
		for _, p := range partitions {
			o, ok := g.owners[lane{topic, p}]
			if !ok {
				continue
			}
			if o.dirty && o.track != nil {
				last = append(last, o.snapshot(true))
			}
			o.revoked = true
			o.backlog = nil
			g.pause(o, false) // the client would keep the pause for the next assignment
			delete(g.owners, o.at)
		}
	}
	g.m.partitions.Set(float64(len(g.owners)))
	g.sink.Revoked()
	g.flow()
	return last
}
