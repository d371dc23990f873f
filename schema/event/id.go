package event

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Fence is the token an attempt writes under. It is derived from Kafka alone,
// so it survives the loss of Redis, and a larger one makes the writers of
// smaller ones harmless:
//
//	redrive generation (8 bits) | hop (12) | group generation (32) | local try (8)
//
// As the first half of a Redis stream entry's id it is checked by Redis itself.
// It is never a number in Lua or JSON (beyond 2^53 neighbours look equal): text
// always, and padded to FenceDigits where text is compared.
type Fence uint64

const (
	tryBits, groupBits, hopBits, generationBits = 8, 32, 12, 8

	hopShift        = tryBits + groupBits
	generationShift = hopShift + hopBits

	// MaxHop leaves the topmost hop to the terminal's fence.
	MaxHop = 1<<hopBits - 2
	// MaxTry is the last local try under one delivery; then the record is republished.
	MaxTry = 1<<tryBits - 1
	// MaxGeneration is the last redrive generation.
	MaxGeneration = 1<<generationBits - 1
	// FenceDigits is the width of Fence.Padded.
	FenceDigits = 19
)

// ErrFenceField is returned when a field does not fit a fence.
var ErrFenceField = errors.New("fence field out of range")

// NewFence builds the fence of one local try of one delivery. Group is the
// consumer group's generation, captured when the partition was assigned.
func NewFence(generation uint8, hop uint16, group int32, try int) (Fence, error) {
	if hop > MaxHop || group < 0 || try < 0 || try > MaxTry {
		return 0, fmt.Errorf("%w: hop %d, group generation %d, try %d", ErrFenceField, hop, group, try)
	}
	return Fence(uint64(generation)<<generationShift | uint64(hop)<<hopShift | uint64(group)<<tryBits | uint64(try)), nil
}

// TerminalFence sorts after every attempt of a generation and before the next
// generation: Redis refuses tokens that come after the end.
func TerminalFence(generation uint8) Fence {
	return Fence(uint64(generation)<<generationShift | (1<<generationShift - 1))
}

// Generation returns the redrive generation of the fence.
func (f Fence) Generation() uint8 { return uint8(f >> generationShift) }

// Hop returns how often the attempt's record had been published again.
func (f Fence) Hop() uint16 { return uint16(f >> hopShift & (1<<hopBits - 1)) }

// Terminal reports whether f is the fence of a generation's terminal.
func (f Fence) Terminal() bool { return f == TerminalFence(f.Generation()) }

// String returns the decimal form, as Redis prints it.
func (f Fence) String() string { return strconv.FormatUint(uint64(f), 10) }

// Padded returns the decimal form with a fixed width, for text comparison.
func (f Fence) Padded() string { return fmt.Sprintf("%0*d", FenceDigits, uint64(f)) }

// ID names one event of one task: `<fence>-<seq>`, the id of the entry in the
// Redis stream and the `id:` of the SSE frame. Ids of a task are totally
// ordered.
type ID struct {
	Fence Fence
	Seq   uint64
}

// ErrID is returned for text that is not an event id.
var ErrID = errors.New("not an event id")

// QueuedID is the id of the `queued` event, which is never stored.
func QueuedID() ID { return ID{Fence: 0, Seq: 1} }

// TerminalID is the id of a generation's terminal event.
func TerminalID(generation uint8) ID { return ID{Fence: TerminalFence(generation)} }

// LastRestartID is the id of the restart that comes right before a generation's
// terminal when the terminal is of another attempt than the one that was shown.
// No attempt has its fence: the topmost hop is not used.
func LastRestartID(generation uint8) ID { return ID{Fence: TerminalFence(generation) - 1} }

// ParseID reads `<fence>-<seq>` strictly: digits only, no sign, no leading
// zeros, so one id has one text. A fence above every generation's is no id: it
// would not fit FenceDigits, and so not compare as text.
func ParseID(s string) (ID, error) {
	f, q, ok := strings.Cut(s, "-")
	if !ok || !digits(f) || !digits(q) {
		return ID{}, ErrID
	}
	fence, err1 := strconv.ParseUint(f, 10, 64)
	seq, err2 := strconv.ParseUint(q, 10, 64)
	if err1 != nil || err2 != nil || Fence(fence) > TerminalFence(MaxGeneration) {
		return ID{}, ErrID
	}
	return ID{Fence: Fence(fence), Seq: seq}, nil
}

func digits(s string) bool {
	if s == "" || len(s) > 20 || (len(s) > 1 && s[0] == '0') {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// String returns the text form.
func (id ID) String() string { return id.Fence.String() + "-" + strconv.FormatUint(id.Seq, 10) }

// IsZero reports whether id is before every event.
func (id ID) IsZero() bool { return id == ID{} }

// Less reports whether id comes before other.
func (id ID) Less(other ID) bool {
	if id.Fence != other.Fence {
		return id.Fence < other.Fence
	}
	return id.Seq < other.Seq
}

// MarshalText writes the text form: ids are strings in JSON.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads the text form.
func (id *ID) UnmarshalText(b []byte) error {
	parsed, err := ParseID(string(b))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}
