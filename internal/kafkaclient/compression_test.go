package kafkaclient_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock/penstock/internal/kafkaclient"
	"github.com/penstock/penstock/schema/topic"
)

// unpacker notes how a batch was packed, and unpacks it as every client does.
type unpacker struct {
	kgo.Decompressor
	codec  kgo.CompressionCodecType
	packed []byte
}

func (u *unpacker) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	u.codec, u.packed = codec, append(u.packed[:0], src...)
	return u.Decompressor.Decompress(src, codec)
}

// TestBatchesAreReadWithLittleMemory looks at the block size that a frame asks of
// its readers.
func TestBatchesAreReadWithLittleMemory(t *testing.T) {
	cluster, admin := setup(t)
	if err := kafkaclient.EnsureTopics(t.Context(), admin, plan(t, topic.Params{Replication: 1}), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	seen := unpacker{Decompressor: kgo.DefaultDecompressor()}
	cl, err := kafkaclient.New(
		kafkaclient.Config{Brokers: cluster.ListenAddrs(), ClientID: "test"}, slog.New(slog.DiscardHandler),
		append(kafkaclient.ProducerOpts(1<<20), kgo.WithDecompressor(&seen), kgo.ConsumeTopics(topic.Results))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, size := range []int{1_000, 900_000} {
		value := strings.Repeat("hydro", size/5)
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic.Results, Value: []byte(value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		got := cl.PollFetches(t.Context()).Records()
		if len(got) != 1 || string(got[0].Value) != value {
			t.Fatalf("read %d records; want the one of %d bytes", len(got), size)
		}
		if seen.codec != kgo.CodecLz4 || len(seen.packed) > size/4 {
			t.Errorf("%d bytes are %d with codec %d; want them packed with LZ4", size, len(seen.packed), seen.codec)
		}
		// The frame's sixth byte: https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md
		if block := seen.packed[5] >> 4 & 7; block != 4 {
			t.Errorf("a reader of %d bytes needs blocks of class %d; want 4, 64 KiB", size, block)
		}
	}
}
