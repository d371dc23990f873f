package kafkaclient

import (
	"bytes"
	"sync"

	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
)

// lz4Blocks compresses batches with LZ4 in blocks of 64 KiB, as the Java client
// does. A frame tells the size of its blocks and every reader allocates one of
// that size: kgo's own compressor leaves it at 4 MiB, to read a batch of one small
// record too.
type lz4Blocks struct{ writers sync.Pool }

func newCompressor() kgo.Compressor {
	c := new(lz4Blocks)
	c.writers.New = func() any {
		w := lz4.NewWriter(nil)
		if err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb)); err != nil {
			panic(err) // the option is a constant
		}
		return w
	}
	return c
}

// Compress implements [kgo.Compressor].
func (c *lz4Blocks) Compress(dst *bytes.Buffer, src []byte, _ ...kgo.CompressFlag) ([]byte, kgo.CompressionCodecType) {
	w := c.writers.Get().(*lz4.Writer)
	defer c.writers.Put(w)
	w.Reset(dst)
	if _, err := w.Write(src); err != nil {
		return nil, kgo.CodecError
	}
	if err := w.Close(); err != nil {
		return nil, kgo.CodecError
	}
	return dst.Bytes(), kgo.CodecLz4
}
