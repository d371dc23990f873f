package sse

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"

	"github.com/penstock/penstock/internal/follow"
	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
)

// errCursor is returned for text that is no cursor of the tasks asked for.
var errCursor = errors.New("not a cursor of these tasks")

// maxCursor bounds a cursor in bytes of its text: it travels in a header.
const maxCursor = 8 << 10

// cursor is how far a client has come in a stream of many tasks: the `id:` of
// its frames, opaque to clients. It holds for one set of tasks, in any order:
//
//	1 byte    version
//	4 bytes   CRC-32 of the sorted ids
//	2 bits    per task, in the order of the ids: stage
//	uvarint   number of fences, then each as uvarint
//	uvarints  per task at stageInside: index of its fence, sequence
//
// all in base64url. Most tasks are at one of the other stages, and those that
// are not share few fences, so it stays short. If it does not fit, tasks of
// the tail fall back to stageQueued: then the client gets their events again,
// and knows them by the id in the data.
type cursor struct {
	ids    []task.ID // sorted
	index  map[task.ID]int
	sum    uint32
	stages []stage
	at     []event.ID
	inside int // tasks at stageInside
	raw    []byte
	fences []event.Fence
}

type stage byte

const (
	stageNone stage = iota
	stageQueued
	stageInside // after the event at
	stageEnded
)

const cursorVersion = 1

func newCursor(ids []task.ID) *cursor {
	c := &cursor{ids: slices.Clone(ids), index: make(map[task.ID]int, len(ids))}
	slices.Sort(c.ids)
	c.ids = slices.Compact(c.ids)
	hash := crc32.NewIEEE()
	for i, id := range c.ids {
		c.index[id] = i
		_, _ = hash.Write([]byte(id)) // a hash's Write never fails
	}
	c.sum = hash.Sum32()
	c.stages, c.at = make([]stage, len(c.ids)), make([]event.ID, len(c.ids))
	return c
}

// advance notes that an event was sent.
func (c *cursor) advance(id task.ID, to event.ID) {
	i := c.index[id]
	c.at[i] = to
	if c.stages[i] == stageInside {
		c.inside--
	}
	switch {
	case to.Fence.Terminal():
		c.stages[i] = stageEnded
	case to.Fence == 0:
		c.stages[i] = stageQueued
	default:
		c.stages[i] = stageInside
		c.inside++
	}
}

// watches are the tasks that have not ended for this client, each after the
// last event it has.
func (c *cursor) watches() []follow.Watch {
	out := make([]follow.Watch, 0, len(c.ids))
	for i, id := range c.ids {
		switch c.stages[i] {
		case stageEnded:
		case stageQueued:
			out = append(out, follow.Watch{ID: id, After: event.QueuedID()})
		default:
			out = append(out, follow.Watch{ID: id, After: c.at[i]})
		}
	}
	return out
}

// String encodes the cursor.
func (c *cursor) String() string {
	c.raw = append(c.raw[:0], cursorVersion)
	c.raw = binary.BigEndian.AppendUint32(c.raw, c.sum)
	stages := len(c.raw)
	c.raw = append(c.raw, make([]byte, (len(c.ids)+3)/4)...)
	for i, s := range c.stages {
		c.raw[stages+i/4] |= byte(s) << (i % 4 * 2)
	}
	c.appendPositions(stages)
	return base64.RawURLEncoding.EncodeToString(c.raw)
}

// appendPositions writes where the tasks inside stand. One whose position does
// not fit falls back to stageQueued.
func (c *cursor) appendPositions(stages int) {
	const most = maxCursor/4*3 - 16
	c.fences = c.fences[:0]
	var places [2 * binary.MaxVarintLen64]byte
	fences, positions := 0, []byte(nil)
	for i, s := range c.stages {
		if s != stageInside {
			continue
		}
		known := slices.Index(c.fences, c.at[i].Fence)
		cost := 0
		if known < 0 {
			known, cost = len(c.fences), binary.PutUvarint(places[:], uint64(c.at[i].Fence))
		}
		p := binary.AppendUvarint(places[:0], uint64(known))
		p = binary.AppendUvarint(p, c.at[i].Seq)
		if len(c.raw)+fences+cost+len(positions)+len(p) > most {
			c.raw[stages+i/4] ^= byte(stageInside^stageQueued) << (i % 4 * 2)
			continue
		}
		if known == len(c.fences) {
			c.fences = append(c.fences, c.at[i].Fence)
		}
		fences += cost
		positions = append(positions, p...)
	}
	c.raw = binary.AppendUvarint(c.raw, uint64(len(c.fences)))
	for _, f := range c.fences {
		c.raw = binary.AppendUvarint(c.raw, uint64(f))
	}
	c.raw = append(c.raw, positions...)
}

// parseCursor reads what String wrote for the same tasks.
func parseCursor(text string, ids []task.ID) (*cursor, error) {
	c := newCursor(ids)
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(text) > maxCursor || len(raw) < 5+(len(c.ids)+3)/4 || raw[0] != cursorVersion {
		return nil, errCursor
	}
	if binary.BigEndian.Uint32(raw[1:]) != c.sum {
		return nil, errCursor
	}
	raw = raw[5:]
	for i := range c.stages {
		c.stages[i] = stage(raw[i/4] >> (i % 4 * 2) & 3)
	}
	r := uvarints{rest: raw[(len(c.ids)+3)/4:]}
	fences := make([]event.Fence, r.next(uint64(len(c.ids))))
	for i := range fences {
		fences[i] = event.Fence(r.next(1<<64 - 1))
	}
	for i, s := range c.stages {
		if s != stageInside {
			continue
		}
		c.inside++
		n := r.next(uint64(len(fences)))
		c.at[i].Seq = r.next(1<<64 - 1)
		if n >= uint64(len(fences)) {
			return nil, errCursor
		}
		c.at[i].Fence = fences[n]
	}
	if r.bad || len(r.rest) > 0 {
		return nil, errCursor
	}
	return c, nil
}

// uvarints reads numbers and remembers that one was bad.
type uvarints struct {
	rest []byte
	bad  bool
}

// next is the next number, or 0 and bad if it is none or above most.
func (r *uvarints) next(most uint64) uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || v > most {
		r.bad = true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}
