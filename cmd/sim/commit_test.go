package sim_test

import (
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/worker/consume"
)

// commit is what one request told the broker of one partition.
type commit struct {
	at        time.Time
	topic     [16]byte
	partition int32
	offset    int64
	metadata  string
}

// commits are those of the groups that work on tasks, whether the broker took
// them or not.
type commits struct {
	mu  sync.Mutex
	all []commit
}

func (w *world) watchCommits() {
	cluster := w.broker.Cluster()
	cluster.ControlKey(int16(kmsg.OffsetCommit), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		w.commits.add(req.(*kmsg.OffsetCommitRequest))
		return nil, nil, false
	})
}

func (c *commits) add(req *kmsg.OffsetCommitRequest) {
	if req.Group != topic.WorkerGroup(pool) && req.Group != topic.RetryGroup {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			one := commit{at: time.Now(), topic: t.TopicID, partition: p.Partition, offset: p.Offset}
			if p.Metadata != nil {
				one.metadata = *p.Metadata
			}
			c.all = append(c.all, one)
		}
	}
}

// covers returns whether the commit calls an offset settled.
func (c commit) covers() (func(offset int64) bool, error) {
	track, err := consume.RestoreTracker(c.offset, c.metadata)
	return func(offset int64) bool {
		return offset < c.offset || track.Deliver(offset) == consume.Done
	}, err
}
