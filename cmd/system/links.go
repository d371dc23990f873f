package system

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/penstock/penstock/cmd/faults/proxy"
)

// Names of the links, each of which stands for all connections between two
// kinds of parts.
const (
	ProducerKafka  = "producer-kafka"
	WorkerKafka    = "worker-kafka"
	ResultsKafka   = "resultsvc-kafka"
	ProducerRedis  = "producer-redis"
	WorkerRedis    = "worker-redis"
	ResultsRedis   = "resultsvc-redis"
	WorkerBackend  = "worker-backend"
	ClientProducer = "client-producer"
	ClientResults  = "client-resultsvc"
	RedisReplica   = "redis-replica" // only with a replica
)

// Links are the cables between the parts of a system: each is a proxy, or one
// for each broker or process at its end. Checkers go around them. A nil *Links
// has none: the parts are joined directly. It is safe for concurrent use.
type Links struct {
	seed uint64

	mu   sync.Mutex
	list map[string][]*proxy.Proxy
	made uint64
}

// NewLinks returns none yet: brokers, Redis and services add theirs as they
// start. The seed decides the jitter of latency.
func NewLinks(seed uint64) *Links { return &Links{seed: seed, list: map[string][]*proxy.Proxy{}} }

// Add opens one more proxy of a link. The target may be empty and given later.
func (l *Links) Add(name, target string) (*proxy.Proxy, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.made++
	p, err := proxy.Listen(target, l.seed+l.made)
	if err != nil {
		return nil, fmt.Errorf("open link %s: %w", name, err)
	}
	l.list[name] = append(l.list[name], p)
	return p, nil
}

// Names lists the links that exist, sorted.
func (l *Links) Names() []string {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.list))
}

// Of returns the proxies of a link.
func (l *Links) Of(name string) []*proxy.Proxy {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.list[name])
}

// Set puts a fault on a link.
func (l *Links) Set(name string, f proxy.Fault) {
	for _, p := range l.Of(name) {
		p.Set(f)
	}
}

// Reset ends the open connections of a link; new ones pass.
func (l *Links) Reset(name string) {
	for _, p := range l.Of(name) {
		p.Reset()
	}
}

// Heal lets everything pass on every link.
func (l *Links) Heal() {
	for _, name := range l.Names() {
		l.Set(name, proxy.Fault{})
	}
}

// Close ends every proxy.
func (l *Links) Close() error {
	var errs []error
	for _, name := range l.Names() {
		for _, p := range l.Of(name) {
			errs = append(errs, p.Close())
		}
	}
	return errors.Join(errs...)
}

// addrs is where a link is entered, one address for each proxy; without such a
// link it is where it would lead.
func (l *Links) addrs(name string, direct []string) []string {
	list := l.Of(name)
	if len(list) == 0 {
		return direct
	}
	out := make([]string, len(list))
	for i, p := range list {
		out[i] = p.Addr()
	}
	return out
}

// through is the way to one target over a new proxy of a link; without links
// the target itself.
func (l *Links) through(name, target string) (string, error) {
	if l == nil {
		return target, nil
	}
	p, err := l.Add(name, target)
	if err != nil {
		return "", err
	}
	return p.Addr(), nil
}
