package kafkaclient_test

import (
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/schema/topic"
)

// codec notes how batches were written.
type codec struct{ last atomic.Int32 }

// OnProduceBatchWritten implements kgo.HookProduceBatchWritten.
func (c *codec) OnProduceBatchWritten(_ kgo.BrokerMetadata, _ string, _ int32, m kgo.ProduceBatchMetrics) {
	c.last.Store(int32(m.CompressionType))
}

func TestBatchesAreCompressedUnlessAsked(t *testing.T) {
	const none, lz4 = 0, 3 // as in the protocol
	for name, test := range map[string]struct {
		uncompressed bool
		want         int32
	}{
		"over a network":              {false, lz4},
		"to a broker in this process": {true, none},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, admin := setup(t)
			if err := kafkaclient.EnsureTopics(t.Context(), admin, plan(t, topic.Params{Replication: 1}), slog.New(slog.DiscardHandler)); err != nil {
				t.Fatal(err)
			}
			var seen codec
			cl, err := kafkaclient.New(
				kafkaclient.Config{Brokers: cluster.ListenAddrs(), ClientID: "test", Uncompressed: test.uncompressed},
				slog.New(slog.DiscardHandler), append(kafkaclient.ProducerOpts(1<<20), kgo.WithHooks(&seen))...)
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			seen.last.Store(-1)
			r := &kgo.Record{Topic: topic.Results, Value: []byte(strings.Repeat("a", 10_000))}
			if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if got := seen.last.Load(); got != test.want {
				t.Errorf("written with codec %d, want %d", got, test.want)
			}
		})
	}
}
