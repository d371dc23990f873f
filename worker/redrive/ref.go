package redrive

import (
	"errors"
	"strconv"
	"strings"

	"github.com/penstock/penstock/schema/deadletter"
)

// Ref is the place of a record on penstock.dead-letters. Its text form,
// `<partition>-<offset>`, is the letter's id in the admin API.
type Ref struct {
	Partition int32
	Offset    int64
}

var errRef = errors.New("not a dead letter's id, which is <partition>-<offset>")

// ParseRef reads the text form.
func ParseRef(s string) (Ref, error) {
	p, o, ok := strings.Cut(s, "-")
	partition, err1 := strconv.ParseInt(p, 10, 32)
	offset, err2 := strconv.ParseInt(o, 10, 64)
	r := Ref{int32(partition), offset}
	if !ok || err1 != nil || err2 != nil || r.String() != s {
		return Ref{}, errRef
	}
	return r, nil
}

// String returns the text form.
func (r Ref) String() string {
	return strconv.Itoa(int(r.Partition)) + "-" + strconv.FormatInt(r.Offset, 10)
}

// MarshalText writes the text form.
func (r Ref) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads the text form.
func (r *Ref) UnmarshalText(b []byte) error {
	parsed, err := ParseRef(string(b))
	if err != nil {
		return err
	}
	*r = parsed
	return nil
}

// compare orders refs by partition, then offset.
func (r Ref) compare(o Ref) int {
	if r.Partition != o.Partition {
		return int(r.Partition) - int(o.Partition)
	}
	switch {
	case r.Offset < o.Offset:
		return -1
	case r.Offset > o.Offset:
		return 1
	}
	return 0
}

// identity names a death, not a record: a worker that crashed between the
// dead letter and its commit writes the letter again, and both collapse.
type identity struct {
	Topic      string `json:"topic"`
	Partition  int32  `json:"partition"`
	Offset     int64  `json:"offset"`
	Generation uint8  `json:"generation"`
}

func identityOf(l *deadletter.Letter) identity {
	return identity{l.Origin.Topic, l.Origin.Partition, l.Origin.Offset, l.Generation}
}
