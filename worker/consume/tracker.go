package consume

import (
	"fmt"
)

// Span is how far, in offsets, deliveries may run ahead of the settled
// watermark. It is chosen so that the bitmap of a full span, with its header,
// fits MetadataLimit whatever its contents: overflow is impossible by
// construction, not by a heuristic.
const Span = (metadataBytes - metadataHeader) * 8

// ring is the number of bits kept: the power of two above Span.
const ring = 1 << 14

// Verdict says what is to be done with a record that the log has just given us.
type Verdict int

// Verdicts of Tracker.Deliver.
const (
	// Fresh: not settled as far as we know; run it.
	Fresh Verdict = iota
	// Done: settled before the last restart; skip it.
	Done
	// Full: further ahead of the watermark than Span. Nothing changed; offer it
	// again once the watermark has moved.
	Full
	// Rewound: below what was already delivered, so the log itself went back
	// (truncation, or a reset of the group's offsets). Nothing changed; the
	// caller starts a new tracker there.
	Rewound
)

// Tracker remembers which offsets of one partition are settled, for the time
// of one assignment. It is not safe for concurrent use: its owner holds a lock.
//
//	base            next            base+Span
//	 │ bits: settled?│ restored bits  │
//	 ▼───────────────▼────────────────▼
type Tracker struct {
	base int64 // settled watermark: every offset below it is settled
	next int64 // the lowest offset not yet delivered
	bits [ring / 64]uint64
}

// NewTracker starts at a watermark with nothing settled above it.
func NewTracker(watermark int64) *Tracker {
	return &Tracker{base: watermark, next: watermark}
}

// RestoreTracker starts at a committed offset with the settled offsets that its
// metadata names. With empty metadata that is NewTracker. Corrupt or unknown
// metadata gives a usable tracker with nothing settled, so that everything is
// replayed, and an error that wraps ErrMetadata.
func RestoreTracker(watermark int64, metadata string) (*Tracker, error) {
	t := NewTracker(watermark)
	if metadata == "" {
		return t, nil
	}
	err := decodeMetadata(watermark, metadata, t.set)
	if err != nil {
		return NewTracker(watermark), fmt.Errorf("restore tracker at %d: %w", watermark, err)
	}
	return t, nil
}

// Deliver takes note of the next record of the log. Offsets must rise; those
// that were skipped have no record (compaction, transaction markers, the log's
// start has moved) and count as settled.
func (t *Tracker) Deliver(offset int64) Verdict {
	switch {
	case offset < t.next:
		return Rewound
	case t.base == t.next && offset >= t.base+Span:
		t.jump(offset) // nothing is outstanding: a gap of any width is passed
	case offset >= t.base+Span:
		return Full
	}
	for o := t.next; o < offset; o++ {
		t.set(o)
	}
	t.next = offset + 1
	if t.has(offset) {
		t.advance()
		return Done
	}
	t.advance()
	return Fresh
}

// jump moves an idle tracker over a gap wider than the span.
func (t *Tracker) jump(offset int64) {
	clear(t.bits[:])
	t.base, t.next = offset, offset
}

// Settle marks a delivered offset as settled. It reports false, and changes
// nothing, for an offset that was not delivered or is settled already.
func (t *Tracker) Settle(offset int64) bool {
	if offset < t.base || offset >= t.next || t.has(offset) {
		return false
	}
	t.set(offset)
	t.advance()
	return true
}

// Watermark is the offset below which everything is settled.
func (t *Tracker) Watermark() int64 { return t.base }

// Next is the offset after the last delivered one.
func (t *Tracker) Next() int64 { return t.next }

// Width is how many offsets lie between the watermark and the last delivered
// offset; a new offset is refused when it would exceed Span.
func (t *Tracker) Width() int { return int(t.next - t.base) }

// Commit returns the watermark and the metadata that names the settled offsets
// above it, of one and the same moment. The metadata has at most MetadataLimit
// bytes, always.
func (t *Tracker) Commit() (watermark int64, metadata string) {
	return t.base, encodeMetadata(t.base, t.bitmap())
}

// bitmap returns the settled bits from the watermark on, without trailing
// zero bytes.
func (t *Tracker) bitmap() []byte {
	var out [Span / 8]byte
	last := 0
	for i := range out {
		var b byte
		for j := range 8 {
			if t.has(t.base + int64(i*8+j)) {
				b |= 1 << j
			}
		}
		if out[i] = b; b != 0 {
			last = i + 1
		}
	}
	return out[:last]
}

// advance moves the watermark over what is settled and frees its bits.
func (t *Tracker) advance() {
	for t.base < t.next && t.has(t.base) {
		word, bit := place(t.base)
		t.bits[word] &^= bit
		t.base++
	}
}

func (t *Tracker) has(offset int64) bool {
	word, bit := place(offset)
	return t.bits[word]&bit != 0
}

func (t *Tracker) set(offset int64) {
	word, bit := place(offset)
	t.bits[word] |= bit
}

// place is an offset's bit in the ring. Offsets of one window of Span bits never
// share one, because Span < ring.
func place(offset int64) (word int, bit uint64) {
	i := uint64(offset) % ring
	return int(i / 64), 1 << (i % 64)
}
