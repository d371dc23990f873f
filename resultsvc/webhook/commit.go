package webhook

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/internal/lifecycle"
	"github.com/penstock/penstock/schema/topic"
)

// commitTimeout bounds one commit; in a rebalance others wait for it.
const commitTimeout = time.Second

// commitLoop commits beside the matching, which must not wait for it.
func (c *Courier) commitLoop(ctx context.Context, group *kgo.Client) {
	for lifecycle.Pause(ctx, c.p.Check) {
		c.commit(ctx, group)
	}
}

// commit notes how far the results were matched, in the name of the group
// although it consumes another topic: so the broker refuses it from a member
// whose time is over. One that fails is made good by the next; one that comes
// too late has some results matched again, which is harmless.
func (c *Courier) commit(ctx context.Context, group *kgo.Client) {
	at := c.positions()
	if len(at.Partitions) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	req, err := kafkaclient.MemberCommit(group, topic.WebhookGroup)
	if err == nil {
		req.Topics = []kmsg.OffsetCommitRequestTopic{at}
		err = kafkaclient.Commit(ctx, group, req)
	}
	if err != nil {
		c.d.Log.Debug("commit results for webhooks", "err", err)
		return
	}
	c.committed(at)
}

// positions are those that moved since they were committed.
func (c *Courier) positions() (at kmsg.OffsetCommitRequestTopic) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at.Topic, at.TopicID = topic.Results, c.topicID
	for number, p := range c.owned {
		if p.position == p.told {
			continue
		}
		one := kmsg.NewOffsetCommitRequestTopicPartition()
		one.Partition, one.Offset = number, p.position
		at.Partitions = append(at.Partitions, one)
	}
	return at
}

func (c *Courier) committed(at kmsg.OffsetCommitRequestTopic) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range at.Partitions {
		if p := c.owned[one.Partition]; p != nil {
			p.told = one.Offset
		}
	}
}

// fetchedFrom notes the id of the topic, by which commits name it.
func (c *Courier) fetchedFrom(id [16]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.topicID = id
}
