// Package topic is the one declared plan of Kafka topics: names, partition
// counts and settings, and the fixed rule that places a task's terminals.
package topic

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/penstock/penstock/schema/task"
)

// Names of the topics that exist once.
const (
	Results     = "penstock.results"      // terminals, keyed by task id
	DeadLetters = "penstock.dead-letters" // original bytes, lineage in headers
	Control     = "penstock.control"      // redrive jobs, discards, audit; files and batches
	Clock       = "penstock.clock"        // empty records, written to learn the brokers' time
	Webhooks    = "penstock.webhooks"     // who wants to hear how a task ends, and what became of it

	Conversations = "penstock.conversations" // what sessions remember; requests of stored responses

	tasksPrefix = "penstock.tasks."
	retryPrefix = "penstock.retry."
)

// Tasks is the topic of a pool's class.
func Tasks(pool string, class task.Class) string { return tasksPrefix + pool + "." + string(class) }

// ParseTasks is the inverse of Tasks.
func ParseTasks(name string) (pool string, class task.Class, ok bool) {
	rest, ok := strings.CutPrefix(name, tasksPrefix)
	if !ok {
		return "", "", false
	}
	i := strings.LastIndexByte(rest, '.')
	if i <= 0 {
		return "", "", false
	}
	return rest[:i], task.Class(rest[i+1:]), true
}

// Tier is one retry topic: records wait there for its delay.
type Tier struct {
	Name  string // as in the topic name
	Delay time.Duration
}

// Topic is the name of the tier's topic.
func (t Tier) Topic() string { return retryPrefix + t.Name }

// IsRetry reports whether a topic is a retry tier's.
func IsRetry(name string) bool { return strings.HasPrefix(name, retryPrefix) }

// Tiers returns the retry tiers, shortest first.
func Tiers() []Tier {
	return []Tier{
		{"5s", 5 * time.Second},
		{"30s", 30 * time.Second},
		{"2m", 2 * time.Minute},
		{"10m", 10 * time.Minute},
	}
}

// TierFor returns the largest tier whose delay is not above wait. Waits below
// the shortest tier have none: they stay in memory.
func TierFor(wait time.Duration) (Tier, bool) {
	tiers := Tiers()
	for i := len(tiers) - 1; i >= 0; i-- {
		if tiers[i].Delay <= wait {
			return tiers[i], true
		}
	}
	return Tier{}, false
}

// WorkerGroup is the consumer group of a pool, over all its classes.
func WorkerGroup(pool string) string { return "penstock.worker." + pool }

// Names of the other consumer groups.
const (
	ProjectorGroup = "penstock.projector"
	RetryGroup     = "penstock.retry"
	WebhookGroup   = "penstock.webhooks"

	ConversationGroup = "penstock.conversations"
)

// Consumed returns, by consumer group, the topics that hold the tasks of pools
// until they are settled.
func Consumed(pools []string) map[string][]string {
	out := map[string][]string{}
	for _, pool := range pools {
		for _, class := range task.Classes() {
			out[WorkerGroup(pool)] = append(out[WorkerGroup(pool)], Tasks(pool, class))
		}
	}
	for _, tier := range Tiers() {
		out[RetryGroup] = append(out[RetryGroup], tier.Topic())
	}
	return out
}

// Params are the developer's choices in a plan; zero values are the defaults.
type Params struct {
	Pools       []string      // default "default"
	Partitions  int32         // of every topic but control and clock; default 12
	Replication int16         // default 3
	MinISR      int16         // default 2 at replication 3 or more, else 1
	Retention   time.Duration // of tasks, retry, results and conversations; default 72 h. Webhooks are kept 5 days longer
	DeadLetter  time.Duration // retention of dead letters and control; default 30 days
	MaxBytes    int           // largest record batch; default 9 MiB
}

// Topic is one topic of a plan.
type Topic struct {
	Name        string
	Partitions  int32
	Replication int16
	Config      map[string]string
}

// clockRetention is short, because what lies on Clock is worth nothing a moment
// later.
const clockRetention = time.Hour

// webhookLife is how much longer than a task's end its webhook must be known:
// for the whole schedule of attempts, and the day by which a keyed id may be
// older than its task.
const webhookLife = 5 * 24 * time.Hour

var poolName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)

// ErrPool is returned for a pool name that cannot be part of a topic name, or
// that is named twice.
var ErrPool = errors.New("pool names must be different, each 1 to 40 characters of a-z, 0-9 and inner '-'")

// CheckPool returns ErrPool for a bad pool name.
func CheckPool(name string) error {
	if !poolName.MatchString(name) {
		return fmt.Errorf("%w: %q", ErrPool, name)
	}
	return nil
}

// Plan returns every topic Penstock needs.
//
// Tasks and retry topics have no byte limit and results are deleted by time,
// never compacted: compaction keeps the last record of a key, and here the
// first one wins.
func Plan(p Params) ([]Topic, error) {
	p = p.withDefaults()
	var out []Topic
	add := func(name string, partitions int32, retention time.Duration, extra map[string]string) {
		cfg := map[string]string{
			"cleanup.policy":                 "delete",
			"retention.ms":                   strconv.FormatInt(retention.Milliseconds(), 10),
			"retention.bytes":                "-1",
			"max.message.bytes":              strconv.Itoa(p.MaxBytes),
			"min.insync.replicas":            strconv.Itoa(int(p.MinISR)),
			"unclean.leader.election.enable": "false",
		}
		for k, v := range extra {
			cfg[k] = v
		}
		out = append(out, Topic{name, partitions, p.Replication, cfg})
	}
	for i, pool := range p.Pools {
		if err := CheckPool(pool); err != nil {
			return nil, err
		}
		if slices.Contains(p.Pools[:i], pool) {
			return nil, fmt.Errorf("%w: %q is named twice", ErrPool, pool)
		}
		for _, class := range task.Classes() {
			add(Tasks(pool, class), p.Partitions, p.Retention, nil)
		}
	}
	for _, tier := range Tiers() {
		// The mover waits by the broker's clock.
		add(tier.Topic(), p.Partitions, p.Retention, map[string]string{"message.timestamp.type": "LogAppendTime"})
	}
	add(Results, p.Partitions, p.Retention, nil)
	add(Webhooks, p.Partitions, p.Retention+webhookLife, nil)
	add(Conversations, p.Partitions, p.Retention, nil)
	add(DeadLetters, p.Partitions, p.DeadLetter, nil)
	add(Control, 1, p.DeadLetter, nil)
	add(Clock, 1, clockRetention, map[string]string{"message.timestamp.type": "LogAppendTime"})
	return out, nil
}

// ReferenceLife is how long that must last which a task's record refers to,
// from the record's first writing: until the record, given up at the end of its
// own time, has left the dead letters. A redrive begins it anew.
func (p Params) ReferenceLife() time.Duration {
	p = p.withDefaults()
	return p.Retention + p.DeadLetter
}

func (p Params) withDefaults() Params {
	if len(p.Pools) == 0 {
		p.Pools = []string{"default"}
	}
	if p.Partitions == 0 {
		p.Partitions = 12
	}
	if p.Replication == 0 {
		p.Replication = 3
	}
	if p.MinISR == 0 {
		p.MinISR = 1
		if p.Replication >= 3 {
			p.MinISR = 2
		}
	}
	if p.Retention == 0 {
		p.Retention = 72 * time.Hour
	}
	if p.DeadLetter == 0 {
		p.DeadLetter = 30 * 24 * time.Hour
	}
	if p.MaxBytes == 0 {
		p.MaxBytes = 9 << 20
	}
	return p
}

// ResultsPartition is the partition of `penstock.results` that holds every
// terminal of a task, for life, and of `penstock.webhooks` that holds all of
// its webhook, which has as many. It is what Kafka's own default partitioner
// (murmur2 over the key) gives, computed here so that producer, worker and
// readers agree whatever client they use.
func ResultsPartition(id task.ID, partitions int32) int32 { return PartitionOf([]byte(id), partitions) }

// PartitionOf is the partition that holds every record of a key, of a topic
// whose records we place: `penstock.results`, `penstock.webhooks` and
// `penstock.conversations`. See ResultsPartition.
func PartitionOf(key []byte, partitions int32) int32 {
	return int32((murmur2(key) & 0x7fffffff) % uint32(partitions))
}

// murmur2 is Kafka's variant: seed 0x9747b28c, as in
// org.apache.kafka.common.utils.Utils.murmur2.
func murmur2(b []byte) uint32 {
	const m, r = 0x5bd1e995, 24
	h := uint32(0x9747b28c) ^ uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		k := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
		k *= m
		k ^= k >> r
		k *= m
		h = h*m ^ k
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(b[0])) * m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
