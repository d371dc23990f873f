// Package eventlog keeps the live events of tasks: one Redis stream per task,
// whose entry ids are event ids, and one Pub/Sub channel that carries each
// event as it is written.
//
// Guarantee: an entry's id begins with the writer's fence, so Redis itself
// refuses a writer that was replaced, and one that comes after the end. Within
// a fence the sequence has no holes from its entry 0 on but those that a gap
// tells of. The log may be lost as a whole; the terminal on Kafka has the full
// text.
package eventlog

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/penstock/penstock/schema/event"
	"github.com/penstock/penstock/schema/task"
	"github.com/penstock/penstock/schema/topic"
)

// Errors of a write. Either ends only the token stream, never the attempt.
var (
	ErrFenced   = errors.New("a newer attempt writes this task's events")
	ErrVanished = errors.New("the task's event stream, or the end of it, is gone")
)

// Params are the developer's choices; zero values are the defaults.
type Params struct {
	Partitions int32         // of penstock.results; default 12
	MaxLen     int           // entries of a stream before its head is folded into a snapshot; default 4096
	TTL        time.Duration // of a stream since its last write; default 24 h
}

func (p Params) withDefaults() Params {
	if p.Partitions == 0 {
		p.Partitions = 12
	}
	if p.MaxLen == 0 {
		p.MaxLen = 4096
	}
	if p.TTL == 0 {
		p.TTL = 24 * time.Hour
	}
	return p
}

// Log reads and writes events. It is safe for concurrent use and does not own
// the client.
type Log struct {
	rdb   redis.UniversalClient
	p     Params
	nonce string // tells our entries from those of another writer under the same fence
}

// New returns a log on a client.
func New(rdb redis.UniversalClient, p Params) *Log {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24: the runtime aborts instead
	return &Log{rdb: rdb, p: p.withDefaults(), nonce: hex.EncodeToString(b[:])}
}

func (l *Log) partition(id task.ID) int32 { return topic.ResultsPartition(id, l.p.Partitions) }

// Fields of a stream's entries.
const (
	fieldEvent = "e" // JSON of the event, less its id
	fieldNonce = "n" // the writer's nonce; absent on terminals
)

// Entry is one stored event: its id, and the rest of it as JSON on one line.
// Data is shared and must not be changed.
type Entry struct {
	ID   event.ID
	Data []byte
}

// typePrefix begins the JSON of every event we write.
const typePrefix = `{"type":"`

// Type is the event's type; empty if Data is no event.
func (e Entry) Type() event.Type {
	if rest, ok := bytes.CutPrefix(e.Data, []byte(typePrefix)); ok {
		if name, _, ok := bytes.Cut(rest, []byte{'"'}); ok {
			return event.Type(name)
		}
	}
	var only struct {
		Type event.Type `json:"type"`
	}
	_ = json.Unmarshal(e.Data, &only) // not an event: no type
	return only.Type
}

// Event decodes the entry.
func (e Entry) Event() (event.Event, error) {
	var out event.Event
	if err := json.Unmarshal(e.Data, &out); err != nil {
		return out, fmt.Errorf("decode event %s: %w", e.ID, err)
	}
	out.ID = e.ID
	return out, nil
}

// AppendJSON adds the event as clients get it, which is the stored JSON with the
// id in it, without decoding it.
func (e Entry) AppendJSON(b []byte) []byte {
	b = append(b, `{"id":"`...)
	b = append(b, e.ID.String()...)
	b = append(b, '"')
	rest, object := bytes.CutPrefix(bytes.TrimLeft(e.Data, " \t\r\n"), []byte{'{'})
	rest = bytes.TrimLeft(rest, " \t\r\n")
	if !object || len(rest) == 0 {
		return append(b, '}') // not an event of ours: its id is all there is to say
	}
	if rest[0] != '}' {
		b = append(b, ',')
	}
	return append(b, rest...)
}

// EntryOf encodes an event.
func EntryOf(e event.Event) (Entry, error) {
	id := e.ID
	e.ID = event.ID{}
	data, err := json.Marshal(e)
	if err != nil {
		return Entry{}, fmt.Errorf("encode event %s: %w", id, err)
	}
	return Entry{ID: id, Data: data}, nil
}
