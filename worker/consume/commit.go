package consume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/penstock/penstock/internal/kafkaclient"
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

const (
	commitTimeout = 10 * time.Second      // of one commit, the client's own repetitions included
	commitRetry   = 50 * time.Millisecond // between two tries of a last commit
)

// CommitLoop commits every CommitInterval, or sooner after CommitEvery
// settles, until ctx is done. It is the only place besides a revoke and Close
// that commits, and all of them take turns. ProveOwned needs it.
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
// that is still ours, and whatever somebody wants proof for.
func (g *Group) commitNow(ctx context.Context, last []snapshot) error {
	select {
	case g.commit <- struct{}{}:
		defer func() { <-g.commit }()
	case <-ctx.Done():
		return fmt.Errorf("wait for the commit in flight: %w", context.Cause(ctx))
	}
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	var asked *proof
	if last == nil {
		last, asked = g.snapshots()
	}
	if len(last) == 0 {
		return nil
	}
	err := g.send(ctx, last)
	asked.answer(err)
	if errors.Is(err, errNothing) {
		return nil
	}
	g.m.committed(err)
	if err != nil {
		g.redirty(last)
	}
	return err
}

// commitFirmly is commitNow for whoever gets no second chance: while the group
// is between two generations the broker refuses every commit, so it asks again
// until ctx is done.
func (g *Group) commitFirmly(ctx context.Context, last []snapshot) error {
	for {
		err := g.commitNow(ctx, last)
		if !errors.Is(err, kerr.RebalanceInProgress) && !errors.Is(err, kerr.IllegalGeneration) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(commitRetry):
		}
	}
}

// snapshots takes what the next commit has to say, and who waits for it.
func (g *Group) snapshots() ([]snapshot, *proof) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.settled = 0
	asked := g.asked
	g.asked = nil
	var out []snapshot
	for _, o := range g.owners {
		if o.track != nil && (o.dirty || asked.of(o)) {
			out = append(out, o.snapshot(false))
		}
	}
	if len(out) == 0 {
		asked.answer(errNothing)
	}
	return out, asked
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
	req, err := g.request(snaps)
	if err != nil {
		return err
	}
	return kafkaclient.Commit(ctx, g.cl, req)
}

// request builds the commit. Under the lock that sets the flag it takes the
// generation and leaves out partitions that were taken away.
func (g *Group) request(snaps []snapshot) (*kmsg.OffsetCommitRequest, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	req, err := kafkaclient.MemberCommit(g.cl, g.p.Group)
	if err != nil {
		return nil, err
	}
	topics := map[string]int{}
	for _, s := range snaps {
		if s.o.revoked && !s.final {
			continue
		}
		i, ok := topics[s.o.at.topic]
		if !ok {
			i = len(req.Topics)
			topics[s.o.at.topic] = i
			req.Topics = append(req.Topics, kmsg.OffsetCommitRequestTopic{Topic: s.o.at.topic, TopicID: s.o.topicID})
		}
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, s.partition())
	}
	if len(req.Topics) == 0 {
		return nil, errNothing
	}
	return req, nil
}

func (s snapshot) partition() kmsg.OffsetCommitRequestTopicPartition {
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.Partition, p.Offset, p.Metadata = s.o.at.partition, s.offset, &s.metadata
	return p
}

// Close commits what is settled, leaves the group and closes the client. Poll
// and CommitLoop must have returned. What is still in flight is not settled, so
// its next owner gets it again.
func (g *Group) Close(ctx context.Context) error {
	err := g.commitFirmly(ctx, nil)
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
