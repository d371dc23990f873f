// Package kafkaclient is the only place that builds Kafka clients. Every
// option is set here once, each with its reason, so that all of Penstock speaks
// to Kafka the same way.
package kafkaclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/penstock/penstock/internal/config"
)

// Config says how to reach the cluster.
type Config struct {
	Brokers  []string      `koanf:"brokers" usage:"Kafka bootstrap addresses, host:port, comma separated"`
	Username string        `koanf:"username" usage:"SASL SCRAM-SHA-512 user; empty means no SASL"`
	Password config.Secret `koanf:"password" usage:"SASL password"`
	TLS      bool          `koanf:"tls" usage:"speak TLS to the brokers"`
	ClientID string        `koanf:"client_id" usage:"name of this client in the brokers' logs"`

	// Dial replaces the network, for tests. Nil: the real one.
	Dial func(ctx context.Context, network, host string) (net.Conn, error) `koanf:"-"`
}

// DefaultConfig returns a local broker without security.
func DefaultConfig() Config {
	return Config{Brokers: []string{"127.0.0.1:9092"}, ClientID: "penstock"}
}

// Validate returns every fault of the configuration at once.
func (c Config) Validate() error {
	var errs []error
	if len(c.Brokers) == 0 {
		errs = append(errs, errors.New("brokers: at least one host:port is required"))
	}
	for _, b := range c.Brokers {
		if _, _, err := net.SplitHostPort(b); err != nil {
			errs = append(errs, fmt.Errorf("brokers: %q is not host:port", b))
		}
	}
	if c.Username != "" && c.Password == "" {
		errs = append(errs, errors.New("password: required with username"))
	}
	return errors.Join(errs...)
}

const (
	// MaxRecordBytes is the largest record batch we write or expect, as in the
	// topic plan (max.message.bytes).
	MaxRecordBytes = 9 << 20
	// DeliveryTimeout bounds one produce and the wait for it; after it the
	// outcome may be unknown.
	DeliveryTimeout = 10 * time.Second

	// maxBackoff bounds the wait before a request is tried again.
	maxBackoff = 2 * time.Second
	// ackTimeout is how long a broker may wait for the other replicas, and
	// answerTimeout how much longer its answer may take. A broker that is frozen
	// holds its connections open: only these find it. What it did not answer is
	// sent again, to the new leader; being idempotent, it is not written twice.
	ackTimeout, answerTimeout = 2 * time.Second, 2 * time.Second
)

// New returns a client with the base options and those of its role. It does
// no I/O: the first request connects.
func New(c Config, log *slog.Logger, role ...kgo.Opt) (*kgo.Client, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID(c.ClientID),
		kgo.WithLogger(logger{log}),
		// Telemetry pushes (KIP-714) are the operator's to want, not ours to send.
		kgo.DisableClientMetrics(),
		// A record that unpacks to more than this is a bomb, not a task.
		kgo.MaxDecompressBatchBytes(64 << 20),
		// A new leader is found within seconds, not minutes.
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.RetryBackoffFn(backoff),
		kgo.DialTimeout(3 * time.Second),
	}
	if c.Dial != nil {
		opts = append(opts, kgo.Dialer(c.Dial))
	} else if c.TLS {
		opts = append(opts, kgo.DialTLSConfig(&tls.Config{MinVersion: tls.VersionTLS12}))
	}
	if c.Username != "" {
		opts = append(opts, kgo.SASL(scram.Auth{User: c.Username, Pass: c.Password.Reveal()}.AsSha512Mechanism()))
	}
	opts = append(opts, role...)
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	return cl, nil
}

// backoff is short at first, because most trouble is a leader that just moved.
func backoff(tries int) time.Duration {
	return min(50*time.Millisecond<<min(tries, 6), maxBackoff)
}

// ProducerOpts is the role of whoever writes. At most bufferedBytes wait in
// the client; beyond it kgo.ErrMaxBuffered comes at once from TryProduce.
func ProducerOpts(bufferedBytes int) []kgo.Opt {
	return []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()), // and idempotent, which is kgo's default
		// The client looks at a record's age when it tries again, a backoff late
		// at most.
		kgo.RecordDeliveryTimeout(DeliveryTimeout - maxBackoff),
		kgo.ProduceRequestTimeout(ackTimeout),
		kgo.RequestTimeoutOverhead(answerTimeout),
		kgo.ProducerBatchMaxBytes(MaxRecordBytes),
		kgo.MaxBufferedBytes(bufferedBytes),
		kgo.MaxBufferedRecords(1 << 17), // the byte budget is the real bound
		kgo.WithCompressor(newCompressor()),
		// Keys decide the partition with Kafka's own hash; terminals set it
		// explicitly (see Partitioner).
		kgo.RecordPartitioner(Partitioner()),
		// Topics are created by the plan: an unknown one is a mistake to be
		// told soon, not waited for.
		kgo.UnknownTopicRetries(4),
		// The client batches what gathers while a request is in flight; a
		// linger would only add to every answer's latency.
		kgo.ProducerLinger(0),
	}
}

// GroupOpts is the role of a member of a consumer group that commits by hand.
// A partition without a commit is read from its start: nothing accepted is
// skipped.
func GroupOpts(group string, topics ...string) []kgo.Opt {
	return append(readerOpts(),
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topics...),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.DisableAutoCommit(),
		kgo.SessionTimeout(10*time.Second),
		// A member hears of a rebalance by its next heartbeat: this is what a
		// takeover takes beyond the session timeout.
		kgo.HeartbeatInterval(time.Second),
		kgo.RebalanceTimeout(30*time.Second),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		// Since 1.22 the reset offset is "one minute back" unless said: a commit
		// below the log's start resumes at the start, and is an alarm.
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
}

// ReaderOpts is the role of a reader without a group, from a given offset on.
func ReaderOpts(from kgo.Offset, topics ...string) []kgo.Opt {
	return append(readerOpts(),
		kgo.ConsumeTopics(topics...),
		kgo.ConsumeStartOffset(from),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
}

// ScanOpts is the role of a reader that is given partitions as it goes, has
// time, and must not need much memory. A record larger than a fetch still fits.
func ScanOpts() []kgo.Opt {
	return []kgo.Opt{
		kgo.FetchMaxWait(500 * time.Millisecond),
		kgo.FetchMaxBytes(2 << 20),
		kgo.FetchMaxPartitionBytes(1 << 20),
		kgo.MaxConcurrentFetches(1),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	}
}

// TailOpts is the role of a reader of a topic's live end.
func TailOpts(topic string) []kgo.Opt {
	return ReaderOpts(kgo.NewOffset().AtEnd(), topic)
}

func readerOpts() []kgo.Opt {
	return []kgo.Opt{
		kgo.FetchMaxWait(500 * time.Millisecond),
		kgo.FetchMaxBytes(16 << 20), // one large record must still fit
		kgo.FetchMaxPartitionBytes(MaxRecordBytes),
		kgo.MaxConcurrentFetches(3), // bounds what waits in memory
	}
}

// Partitioner places a record by its key as Kafka's default does (murmur2),
// except records whose Partition is set to PinPartition(n): those go there.
func Partitioner() kgo.Partitioner {
	return pinned{kgo.StickyKeyPartitioner(nil)}
}

// PinPartition marks a record for an explicit partition. The mark is stored
// in Record.Partition as a negative number, because zero is a partition too.
func PinPartition(r *kgo.Record, partition int32) { r.Partition = -partition - 1 }

type pinned struct{ keyed kgo.Partitioner }

func (p pinned) ForTopic(topic string) kgo.TopicPartitioner {
	return pinnedTopic{p.keyed.ForTopic(topic)}
}

type pinnedTopic struct{ kgo.TopicPartitioner }

// RequiresConsistency is true: a key's partition must not depend on which
// brokers are up.
func (p pinnedTopic) RequiresConsistency(*kgo.Record) bool { return true }

func (p pinnedTopic) Partition(r *kgo.Record, n int) int {
	if r.Partition < 0 {
		return int(-r.Partition - 1)
	}
	return p.TopicPartitioner.Partition(r, n)
}

// logger passes the client's own messages to slog, one level down: what it
// calls information is our debugging.
type logger struct{ log *slog.Logger }

func (l logger) Level() kgo.LogLevel {
	switch ctx := context.Background(); {
	case l.log.Enabled(ctx, slog.LevelDebug):
		return kgo.LogLevelInfo
	default:
		return kgo.LogLevelWarn
	}
}

func (l logger) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	to := slog.LevelDebug
	switch level {
	case kgo.LogLevelError, kgo.LogLevelWarn:
		to = slog.LevelWarn // the client heals itself; whoever cannot go on says so
	}
	l.log.Log(context.Background(), to, "kafka client: "+msg, keyvals...)
}
