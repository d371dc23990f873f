package ledger

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
	"github.com/penstock/penstock/worker/consume"
)

// Commits samples what the consumer groups of some pools have committed, and
// afterwards tells whether any commit covered an offset whose task had nothing
// to show for it.
type Commits struct {
	groups  map[string][]string
	written []string // topics that a settled task leaves a record on
	cl      *kgo.Client
	adm     *kadm.Client

	mu      sync.Mutex
	samples []sample
	failed  int
}

// sample is what was committed at a moment, and then how far the logs reached:
// what a commit covers must lie below those ends.
type sample struct {
	at      time.Time
	commits map[place]commit
	ends    map[place]int64
}

type commit struct {
	group    string
	offset   int64
	metadata string
}

// NewCommits opens a sampler; Close ends it.
func NewCommits(brokers []string, pools ...string) (*Commits, error) {
	cl, err := kafkaclient.New(kafkaclient.Config{Brokers: brokers, ClientID: "penstock-ledger"}, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	return &Commits{
		groups: topic.Consumed(pools), written: append(Pooled(pools...), topic.Results, topic.DeadLetters),
		cl: cl, adm: kadm.NewClient(cl),
	}, nil
}

// Close drops the connections.
func (c *Commits) Close() { c.cl.Close() }

// Run takes samples until ctx is done. A sample that Kafka does not answer is
// counted and left out.
func (c *Commits) Run(ctx context.Context, every time.Duration) {
	for wait(ctx, every) == nil {
		err := c.Sample(ctx)
		c.mu.Lock()
		if err != nil && ctx.Err() == nil {
			c.failed++
		}
		c.mu.Unlock()
	}
}

// sampleLimit is how long one sample may take.
const sampleLimit = 5 * time.Second

// Sample takes one now. The commits come first, the ends after them.
func (c *Commits) Sample(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sampleLimit)
	defer cancel()
	s := sample{at: time.Now(), commits: map[place]commit{}, ends: map[place]int64{}}
	for group := range c.groups {
		got, err := c.adm.FetchOffsets(ctx, group)
		if err != nil {
			return fmt.Errorf("fetch the commits of %s: %w", group, err)
		}
		got.Each(func(o kadm.OffsetResponse) {
			if o.Err == nil && o.At >= 0 {
				s.commits[place{o.Topic, o.Partition}] = commit{group, o.At, o.Metadata}
			}
		})
	}
	ends, err := c.adm.ListEndOffsets(ctx, c.written...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("list the ends: %w", err)
	}
	ends.Each(func(e kadm.ListedOffset) { s.ends[place{e.Topic, e.Partition}] = e.Offset })
	c.mu.Lock()
	defer c.mu.Unlock()
	c.samples = append(c.samples, s)
	return nil
}

// CommitCounts sum up the samples.
type CommitCounts struct {
	Samples, Failed int
	Covered         int // offsets that commits covered
	Unread          int // commits whose metadata is not a worker's
}

// check holds every sample against the log.
func (c *Commits) check(l *Log, find func(task.ID, string)) CommitCounts {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := CommitCounts{Samples: len(c.samples), Failed: c.failed}
	covered := map[place]map[int64]bool{}
	for _, s := range c.samples {
		for at, com := range s.commits {
			if covered[at] == nil {
				covered[at] = map[int64]bool{}
			}
			cover := func(offset int64) {
				if covered[at][offset] {
					return
				}
				covered[at][offset] = true
				counts.Covered++
				h, known := l.hops[at][offset]
				if known && !l.settledBy(h, s.ends) {
					find(h.id, fmt.Sprintf("%s committed %s/%d@%d at %s, and nothing that settles it was written by then; %s",
						com.group, at.topic, at.partition, offset, s.at.Format(time.StampMilli), l.story(h.id)))
				}
			}
			for offset := range l.hops[at] {
				if offset < com.offset {
					cover(offset)
				}
			}
			if consume.ReadMetadata(com.offset, com.metadata, cover) != nil {
				counts.Unread++
			}
		}
	}
	return counts
}

// story tells where a task's records lie.
func (l *Log) story(id task.ID) string {
	var parts []string
	for _, h := range l.Tasks[id] {
		parts = append(parts, fmt.Sprintf("hop %d.%d at %s/%d@%d (%s)", h.Generation, h.Hop, h.Topic, h.Partition, h.Offset, h.At.Format(time.StampMilli)))
	}
	if o := l.Ends[id]; o != nil {
		parts = append(parts, fmt.Sprintf("terminals at %d@%v", o.Partition, o.Offsets))
	}
	for _, x := range l.Letters {
		if x.TaskID == id {
			parts = append(parts, fmt.Sprintf("%s letter of %s/%d@%d (%s)", x.Disposition, x.Origin.Topic, x.Origin.Partition, x.Origin.Offset, x.DeadAt.Format(time.StampMilli)))
		}
	}
	return "records: " + strings.Join(parts, ", ")
}

// settledBy reports whether the record's task had a terminal, a later hop or a
// dead letter below some ends.
func (l *Log) settledBy(h hopOf, ends map[place]int64) bool {
	if o := l.Ends[h.id]; o != nil {
		for _, offset := range o.Offsets {
			if offset < ends[place{topic.Results, o.Partition}] {
				return true
			}
		}
	}
	for _, other := range l.Tasks[h.id] {
		if other.later(h.Hop) && other.Offset < ends[place{other.Topic, other.Partition}] {
			return true
		}
	}
	for _, x := range l.Letters {
		here := x.Origin.Topic == h.Topic && x.Origin.Partition == h.Partition && x.Origin.Offset == h.Offset
		if here && x.Offset < ends[place{topic.DeadLetters, x.Partition}] {
			return true
		}
	}
	return false
}
