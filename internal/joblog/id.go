package joblog

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"strings"
	"time"
)

// NewID returns an id that sorts by time: a prefix, 48 bits of milliseconds and
// 64 random bits.
func NewID(prefix string, now time.Time) string {
	raw := binary.BigEndian.AppendUint64(nil, uint64(now.UnixMilli()))[2:]
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails since Go 1.24: the runtime aborts instead
	raw = append(raw, random[:]...)
	return prefix + strings.ToLower(idEncoding().EncodeToString(raw))
}

// IDTime is when NewID made an id; zero for a text that it never made.
func IDTime(prefix, id string) time.Time {
	text, ok := strings.CutPrefix(id, prefix)
	raw, err := idEncoding().DecodeString(strings.ToUpper(text))
	if !ok || err != nil || len(raw) != 14 || text != strings.ToLower(text) {
		return time.Time{}
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(append([]byte{0, 0}, raw[:6]...))))
}

func idEncoding() *base32.Encoding { return base32.HexEncoding.WithPadding(base32.NoPadding) }

// OwnerName makes the name of a process unique: two of one name would both take
// a claim for theirs.
func OwnerName(process string) string { return process + "/" + strings.ToLower(rand.Text()[:8]) }
