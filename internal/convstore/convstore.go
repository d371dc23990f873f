// Package convstore is the Redis projection of `penstock.conversations`: what
// sessions remember, and the requests of stored responses.
//
// Guarantee: records take effect in the order of the log, each once. A turn
// that is there means that all turns of its session which began before it are
// there too, as far as they are still remembered. Nothing here is the truth, and
// a Redis that lost it is filled again from the log.
package convstore

import (
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/internal/projection"
	"github.com/penstock/penstock/internal/rediskey"
	"github.com/penstock/penstock/schema/topic"
)

// Bounds of what a session remembers; the oldest turns go first. A turn whose
// messages are large refers to the blob store and counts little here.
const (
	MaxTurns = 1000
	MaxBytes = 4 << 20
)

// Errors of the reads.
var (
	ErrUnknown    = errors.New("no such conversation")
	ErrRebuilding = errors.New("conversations are being read back from the log")
)

// Params are the developer's choices; zero values are the defaults.
type Params struct {
	Partitions int32         // of penstock.conversations; fixed for life; default 12
	Life       time.Duration // how long a response that was deleted is known as such; default 60 h
}

// Store reads and writes the projection. It is safe for concurrent use and does
// not own the client.
type Store struct {
	*projection.Positions

	rdb redis.UniversalClient
	p   Params
}

// New returns a store on a client.
func New(rdb redis.UniversalClient, p Params) *Store {
	if p.Partitions == 0 {
		p.Partitions = 12
	}
	if p.Life == 0 {
		p.Life = 60 * time.Hour
	}
	return &Store{projection.New(rdb, topic.Conversations, rediskey.Conversations), rdb, p}
}

func (s *Store) partition(key string) int32 { return topic.PartitionOf([]byte(key), s.p.Partitions) }
