package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is a size in bytes, written as "8MiB", "1.5GB" or "512".
type Bytes int64

// units from the largest, binary before decimal of the same size, so that
// String finds the shortest exact form.
var units = [...]struct {
	suffix string
	size   int64
}{
	{"TiB", 1 << 40},
	{"TB", 1e12},
	{"GiB", 1 << 30},
	{"GB", 1e9},
	{"MiB", 1 << 20},
	{"MB", 1e6},
	{"KiB", 1 << 10},
	{"KB", 1e3},
	{"B", 1},
}

// ParseBytes reads a size. Units are case-insensitive; KB is 1000 bytes and
// KiB is 1024. A fraction must come out at whole bytes.
func ParseBytes(s string) (Bytes, error) {
	number, size := strings.TrimSpace(s), int64(1)
	for _, u := range units {
		if n := len(number) - len(u.suffix); n > 0 && strings.EqualFold(number[n:], u.suffix) {
			number, size = strings.TrimSpace(number[:n]), u.size
			break
		}
	}
	whole, errInt := strconv.ParseInt(number, 10, 64)
	if errInt == nil && whole >= 0 && whole <= math.MaxInt64/size {
		return Bytes(whole * size), nil
	}
	f, err := strconv.ParseFloat(number, 64)
	bytes := f * float64(size)
	if err != nil || f < 0 || bytes != math.Trunc(bytes) || bytes >= math.MaxInt64 {
		return 0, fmt.Errorf("want a size such as 8MiB, got %q", s)
	}
	return Bytes(bytes), nil
}

// String writes the size in the largest unit that divides it.
func (b Bytes) String() string {
	for _, u := range units {
		if n := int64(b); n != 0 && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.suffix
		}
	}
	return "0B"
}

// UnmarshalText parses as ParseBytes does.
func (b *Bytes) UnmarshalText(text []byte) error {
	v, err := ParseBytes(string(text))
	if err == nil {
		*b = v
	}
	return err
}

// MarshalText writes as String does.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }
