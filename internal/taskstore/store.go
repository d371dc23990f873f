// Package taskstore is the Redis projection of `penstock.results`: for each
// task the terminal that won, or hints while there is none.
//
// Guarantee: results records take effect in the order of the log, each once,
// by the rule of schema/terminal. The position up to which a partition is
// applied lives beside the tasks and moves with them in one script, so a Redis
// that lost its data is seen at once and is rebuilt from the log. Nothing here
// is the truth, and everything may be lost.
package taskstore

import (
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/projection"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
)

// Params are the developer's choices; zero values are the defaults.
type Params struct {
	Partitions int32         // of penstock.results; fixed for life; default 12
	TTL        time.Duration // how long a result stays readable; default 24 h
	MaxAge     time.Duration // the longest a task may stay unfinished; default 36 h
}

func (p Params) withDefaults() Params {
	if p.Partitions == 0 {
		p.Partitions = 12
	}
	if p.TTL == 0 {
		p.TTL = 24 * time.Hour
	}
	if p.MaxAge == 0 {
		p.MaxAge = 36 * time.Hour
	}
	return p
}

// GoneAt is when a task is past every result's time to live, see Gone.
func (p Params) GoneAt(id task.ID) time.Time {
	p = p.withDefaults()
	made := id.Time()
	if id.Keyed() {
		made = made.Add(task.Bucket) // a keyed id bears the start of its bucket
	}
	return made.Add(p.MaxAge + p.TTL)
}

// Gone reports whether a task is past every result's time to live, whatever
// became of it: it must have ended within MaxAge, and its result is kept for
// TTL. Terminals of such tasks are ignored, so that 410 never turns into 200.
func (p Params) Gone(id task.ID, now time.Time) bool { return now.After(p.GoneAt(id)) }

// Store reads and writes the projection. It is safe for concurrent use and
// does not own the client.
type Store struct {
	*projection.Positions

	rdb redis.UniversalClient
	p   Params
}

// New returns a store on a client.
func New(rdb redis.UniversalClient, p Params) *Store {
	return &Store{projection.New(rdb, "results", rediskey.Projection), rdb, p.withDefaults()}
}

// Params returns the store's parameters, with the defaults filled in.
func (s *Store) Params() Params { return s.p }

// Partition is the results partition of a task.
func (s *Store) Partition(id task.ID) int32 { return topic.ResultsPartition(id, s.p.Partitions) }

// Fields of a task's hash. Those of the log are written by apply.lua alone,
// those of the hint by hint.lua alone.
const (
	fieldGeneration = "g" // the log's: generation; absent: 0
	fieldStatus     = "s" // terminal status; empty or absent: open
	fieldOffset     = "o" // offset of the record that set the status or opened the generation
	fieldJob        = "j" // redrive job that opened the generation

	fieldHint    = "hs" // the hint's: status
	fieldHintGen = "hg" // its generation
	fieldAttempt = "ha" // its attempt
	fieldModel   = "m"
	fieldClass   = "c"
	fieldLabels  = "l"  // JSON
	fieldCreated = "ca" // milliseconds since 1970
)
