package devstack

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"
)

const (
	// DefaultRetain is how many results the store keeps at most.
	DefaultRetain = 10_000

	tick       = time.Second
	evictEvery = 15 * time.Second
	// tickShare keeps the ticking below 1/tickShare of one core: a tick walks
	// every key under the store's only lock.
	tickShare = 20
)

// StoreParams are the developer's choices.
type StoreParams struct {
	// Retain bounds the results kept; the oldest expire first, whatever their
	// time to live. Default DefaultRetain.
	Retain int
	// Virtual serves no port: clients reach the store through Dial alone.
	Virtual bool
}

// Store is one Redis in this process. It starts empty, always: what it knew is
// in Kafka, from where the results service rebuilds it.
type Store struct {
	redis  *miniredis.Miniredis
	retain int
	addr   string
}

// OpenStore starts a store. Run must run for keys to expire.
func OpenStore(p StoreParams) (*Store, error) {
	s := &Store{redis: miniredis.NewMiniRedis(), retain: p.Retain, addr: "127.0.0.1:6379"}
	if s.retain == 0 {
		s.retain = DefaultRetain
	}
	if p.Virtual {
		return s, nil // the first Dial starts it
	}
	if err := s.redis.Start(); err != nil {
		return nil, fmt.Errorf("start store: %w", err)
	}
	s.addr = s.redis.Addr()
	return s, nil
}

// Addr is host:port; on a virtual store a name that only Dial knows.
func (s *Store) Addr() string { return s.addr }

// URL is the store's address in the form a client's configuration has it.
func (s *Store) URL() string { return "redis://" + s.addr + "/0" }

// Dial connects inside the process, without a socket.
func (s *Store) Dial(context.Context, string, string) (net.Conn, error) {
	c, err := s.redis.Dial()
	if err != nil {
		return nil, fmt.Errorf("dial store: %w", err)
	}
	return newPipe(c), nil
}

// Redis is the store itself, for tests that flush or break it.
func (s *Store) Redis() *miniredis.Miniredis { return s.redis }

// Close stops the store and forgets everything.
func (s *Store) Close() { s.redis.Close() }

// Run lets time pass for the keys, until ctx is done, and bounds how many
// results are kept. The store's own clock would walk every key at every command, which
// at 10,000 tasks makes a read a hundred times slower; so we tick it.
func (s *Store) Run(ctx context.Context) {
	last, evicted := time.Now(), time.Now()
	timer := time.NewTimer(tick)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		s.redis.FastForward(began.Sub(last))
		last = began
		if began.Sub(evicted) >= evictEvery {
			s.Evict()
			evicted = began
		}
		timer.Reset(max(tick, tickShare*time.Since(began)))
	}
}

// Evict lets the oldest results beyond the bound expire, with their events, and
// returns how many. What is left of such a task is its small state, by which a
// reader is told that the result has expired.
func (s *Store) Evict() int {
	results := make(map[string]string) // id → the key of its result
	for _, key := range s.redis.Keys() {
		if id, ok := resultOf(key); ok {
			results[id] = key
		}
	}
	if len(results) <= s.retain {
		return 0
	}
	ids := slices.Sorted(maps.Keys(results)) // ids begin with their time
	old := ids[:len(ids)-s.retain]
	for _, id := range old {
		for _, kind := range []string{resultKind, ":events:", ":snapshot:"} {
			s.redis.Del(strings.Replace(results[id], resultKind, kind, 1))
		}
	}
	return len(old)
}

// resultKind marks the key of a result: penstock:{p}:result:<id>.
const resultKind = ":result:"

// resultOf returns the task whose result a key holds.
func resultOf(key string) (id string, ok bool) {
	partition, id, ok := strings.Cut(key, resultKind)
	return id, ok && strings.HasPrefix(partition, "penstock:{")
}
