package devstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/gofrs/flock"
	"github.com/twmb/franz-go/pkg/kfake"
)

// cleanerBackoff is how often the broker applies retention. Its default of one
// hour would let a broker in memory grow for that long.
const cleanerBackoff = 5 * time.Second

// virtualPort is the broker's port on a virtual network, where nobody else is.
const virtualPort = 9092

// ErrInUse is returned when another process holds the data directory: the
// broker itself does not look, and two of them would ruin the log.
var ErrInUse = errors.New("data directory is in use by another process")

// BrokerParams are the developer's choices.
type BrokerParams struct {
	// DataDir keeps the log across restarts. Empty: memory. The directory is
	// created if needed and locked while the broker runs.
	DataDir string
	// Net replaces the network, for synctest. Nil: a free port of 127.0.0.1.
	Net *kfake.VirtualNetwork
}

// Broker is one Kafka broker in this process.
type Broker struct {
	cluster *kfake.Cluster
	net     *kfake.VirtualNetwork
	lock    *flock.Flock
}

// OpenBroker starts a broker, with what its data directory holds.
func OpenBroker(p BrokerParams) (*Broker, error) {
	b := &Broker{net: p.Net}
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.ClusterID("penstock-dev"),
		kfake.BrokerConfigs(map[string]string{
			"log.cleaner.backoff.ms": strconv.FormatInt(cleanerBackoff.Milliseconds(), 10),
		}),
	}
	if p.Net != nil {
		opts = append(opts, kfake.ListenFn(p.Net.Listen), kfake.Ports(virtualPort))
	}
	if p.DataDir != "" {
		if err := b.claim(p.DataDir); err != nil {
			return nil, err
		}
		opts = append(opts, kfake.DataDir(filepath.Join(p.DataDir, "kafka")))
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start broker: %w", err), b.release())
	}
	b.cluster = cluster
	return b, nil
}

// claim locks the data directory for this process.
func (b *Broker) claim(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil { // it holds prompts and answers
		return fmt.Errorf("create data directory: %w", err)
	}
	b.lock = flock.New(filepath.Join(dir, "penstock.lock"))
	ok, err := b.lock.TryLock()
	if err != nil {
		return fmt.Errorf("lock data directory %s: %w", dir, err)
	}
	if !ok {
		return fmt.Errorf("%w: %s", ErrInUse, dir)
	}
	return nil
}

func (b *Broker) release() error {
	if b.lock == nil {
		return nil
	}
	if err := b.lock.Unlock(); err != nil {
		return fmt.Errorf("unlock data directory: %w", err)
	}
	return nil
}

// Addrs returns the bootstrap addresses.
func (b *Broker) Addrs() []string { return b.cluster.ListenAddrs() }

// Dial returns the function that reaches the broker, for a client's
// configuration. Nil on the real network.
func (b *Broker) Dial() func(ctx context.Context, network, host string) (net.Conn, error) {
	if b.net == nil {
		return nil
	}
	return b.net.DialContext
}

// Cluster is the broker itself, for tests that inject faults.
func (b *Broker) Cluster() *kfake.Cluster { return b.cluster }

// Close stops the broker and, with a data directory, writes what is left.
func (b *Broker) Close() error {
	b.cluster.Close()
	return b.release()
}
