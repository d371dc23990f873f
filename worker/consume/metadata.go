package consume

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// MetadataLimit is the most bytes of commit metadata that we ever write. Kafka
// takes 4,096 (offset.metadata.max.bytes); this leaves room for brokers set
// lower.
const MetadataLimit = 2732

const (
	metadataBytes  = MetadataLimit * 3 / 4 // before base64
	metadataHeader = 1 + 4                 // format, checksum
)

// Formats of the body: the first byte of the metadata. An unknown one is
// ignored by an older worker, which then replays.
const (
	formatBitmap byte = 1 // one bit per offset from the watermark, least significant first
	formatRuns   byte = 2 // uvarints: unsettled, settled, unsettled, … from the watermark
)

// ErrMetadata is returned for commit metadata that is not ours, is damaged or
// belongs to another offset. The cure is to ignore it: work is repeated, never
// skipped.
var ErrMetadata = errors.New("unreadable commit metadata")

// encodeMetadata writes the settled bits above a watermark as base64url text:
//
//	format (1) | CRC-32C over watermark, format and body (4) | body
//
// The watermark is in the checksum, not in the text, so metadata that ended up
// beside another offset is found out.
func encodeMetadata(watermark int64, bitmap []byte) string {
	if len(bitmap) == 0 {
		return ""
	}
	format, body := formatBitmap, bitmap
	if runs := runsOf(bitmap, len(bitmap)); runs != nil {
		format, body = formatRuns, runs
	}
	raw := make([]byte, metadataHeader, metadataHeader+len(body))
	raw[0] = format
	binary.BigEndian.PutUint32(raw[1:], checksum(watermark, format, body))
	return base64.RawURLEncoding.EncodeToString(append(raw, body...))
}

// runsOf encodes a bitmap as run lengths, or returns nil when that would take
// at least limit bytes.
func runsOf(bitmap []byte, limit int) []byte {
	out := make([]byte, 0, limit)
	run, settled := uint64(0), false
	for i := range len(bitmap) * 8 {
		if bit := bitmap[i/8]>>(i%8)&1 == 1; bit != settled {
			out = binary.AppendUvarint(out, run)
			run, settled = 0, bit
			if len(out) >= limit {
				return nil
			}
		}
		run++
	}
	if settled { // a run of unsettled offsets at the end says nothing
		out = binary.AppendUvarint(out, run)
	}
	if len(out) >= limit {
		return nil
	}
	return out
}

// decodeMetadata calls settled for every offset that the metadata names.
func decodeMetadata(watermark int64, text string, settled func(offset int64)) error {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) < metadataHeader || len(raw) > metadataBytes {
		return fmt.Errorf("%w: not base64url of %d to %d bytes", ErrMetadata, metadataHeader, metadataBytes)
	}
	format, body := raw[0], raw[metadataHeader:]
	if binary.BigEndian.Uint32(raw[1:]) != checksum(watermark, format, body) {
		return fmt.Errorf("%w: checksum differs: damaged, or of another offset", ErrMetadata)
	}
	switch format {
	case formatBitmap:
		return decodeBitmap(watermark, body, settled)
	case formatRuns:
		return decodeRuns(watermark, body, settled)
	default:
		return fmt.Errorf("%w: unknown format %d", ErrMetadata, format)
	}
}

func decodeBitmap(watermark int64, body []byte, settled func(int64)) error {
	for i := range len(body) * 8 {
		if body[i/8]>>(i%8)&1 == 1 {
			settled(watermark + int64(i))
		}
	}
	return nil
}

func decodeRuns(watermark int64, body []byte, settled func(int64)) error {
	at, on := uint64(0), false
	for len(body) > 0 {
		run, n := binary.Uvarint(body)
		if n <= 0 || run > Span || at+run > Span {
			return fmt.Errorf("%w: run length out of range", ErrMetadata)
		}
		for i := range run {
			if on {
				settled(watermark + int64(at+i))
			}
		}
		body, at, on = body[n:], at+run, !on
	}
	return nil
}

func checksum(watermark int64, format byte, body []byte) uint32 {
	head := binary.BigEndian.AppendUint64(nil, uint64(watermark))
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Update(0, table, append(head, format)), table, body)
}
