package consume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// snapshot is what one owner has to commit, of one moment.
type snapshot struct {
	o        *owner
	offset   int64
	metadata string
	final    bool // of a partition just given up: commit it in spite of the flag
}

// snapshot takes the owner's state and marks it clean; the caller holds the
// lock. A failed commit marks it dirty again.
func (o *owner) snapshot(final bool) snapshot {
	o.dirty = false
	offset, metadata := o.track.Commit()
	return snapshot{o, offset, metadata, final}
}

var errNothing = errors.New("nothing left to commit")

// CommitLoop commits every CommitInterval, or sooner after CommitEvery
// settles, until ctx is done. It is the only place besides a revoke and Close
// that commits, and all of them take turns.
func (g *Group) CommitLoop(ctx context.Context) {
	tick := time.NewTicker(g.p.CommitInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-g.nudge:
		}
		if err := g.commitNow(ctx, nil); err != nil && ctx.Err() == nil {
			g.log.Warn("commit failed: it is repeated with the next", "err", err)
		}
	}
}

// commitNow waits for its turn and commits. A nil last means every dirty owner
// that is still ours.
func (g *Group) commitNow(ctx context.Context, last []snapshot) error {
	select {
	case g.commit <- struct{}{}:
		defer func() { <-g.commit }()
	case <-ctx.Done():
		return fmt.Errorf("wait for the commit in flight: %w", context.Cause(ctx))
	}
	if last == nil {
		last = g.snapshots()
	}
	if len(last) == 0 {
		return nil
	}
	err := g.send(ctx, last)
	if errors.Is(err, errNothing) {
		return nil
	}
	g.m.committed(err)
	if err != nil {
		g.redirty(last)
	}
	return err
}

func (g *Group) snapshots() []snapshot {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.settled = 0
	var out []snapshot
	for _, o := range g.owners {
		if o.dirty && o.track != nil {
			out = append(out, o.snapshot(false))
		}
	}
	return out
}

func (g *Group) redirty(snaps []snapshot) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range snaps {
		s.o.dirty = true
	}
}

// send writes one commit and checks every partition's answer.
func (g *Group) send(ctx context.Context, snaps []snapshot) error {
	offsets := map[string]map[int32]kgo.EpochOffset{}
	for _, s := range snaps {
		if offsets[s.o.at.topic] == nil {
			offsets[s.o.at.topic] = map[int32]kgo.EpochOffset{}
		}
		offsets[s.o.at.topic][s.o.at.partition] = kgo.EpochOffset{Epoch: -1, Offset: s.offset}
	}
	var err error
	ctx = kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error { return g.fillIn(req, snaps) })
	g.cl.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, sendErr error) {
		if err = sendErr; err == nil {
			err = partitionErrors(resp)
		}
	})
	return err
}

// fillIn puts our metadata into the request and takes out, at the last moment
// and under the lock that sets the flag, partitions that were taken away.
func (g *Group) fillIn(req *kmsg.OffsetCommitRequest, snaps []snapshot) error {
	byLane := make(map[lane]snapshot, len(snaps))
	for _, s := range snaps {
		byLane[s.o.at] = s
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	left := 0
	for i := range req.Topics {
		t := &req.Topics[i]
		kept := t.Partitions[:0]
		for _, p := range t.Partitions {
			s, ok := byLane[lane{t.Topic, p.Partition}]
			if !ok || s.o.revoked && !s.final {
				continue
			}
			p.Metadata = &s.metadata
			kept = append(kept, p)
		}
		t.Partitions = kept
		left += len(kept)
	}
	if left == 0 {
		return errNothing
	}
	return nil
}

func partitionErrors(resp *kmsg.OffsetCommitResponse) error {
	var errs []error
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				errs = append(errs, fmt.Errorf("commit %s/%d: %w", t.Topic, p.Partition, err))
			}
		}
	}
	return errors.Join(errs...)
}

// Close commits what is settled, leaves the group and closes the client. Poll
// and CommitLoop must have returned. What is still in flight is not settled, so
// its next owner gets it again.
func (g *Group) Close(ctx context.Context) error {
	err := g.commitNow(ctx, nil)
	left := g.cl.LeaveGroupContext(ctx)
	g.cl.CloseAllowingRebalance()
	g.m.unregister()
	if err != nil {
		err = fmt.Errorf("final commit of group %s: %w", g.p.Group, err)
	}
	if left != nil {
		left = fmt.Errorf("leave group %s: %w", g.p.Group, left)
	}
	return errors.Join(err, left)
}
